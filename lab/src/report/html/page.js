// Shows the arm that was chosen, and folds the others of its kernel.
function show() {
  const chosen = document.getElementById(location.hash.slice(1));
  if (!chosen || !chosen.matches("details.arm")) return;
  for (const arm of chosen.parentElement.querySelectorAll(":scope > details.arm")) arm.open = arm === chosen;
  chosen.scrollIntoView();
}
addEventListener("hashchange", show);
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
show();
