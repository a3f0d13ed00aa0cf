// Shows the arm that was chosen, and folds the others of its kernel.
function show() {
  const chosen = document.getElementById(location.hash.slice(1));
  if (!chosen || !chosen.matches("details.arm")) return;
  for (const arm of chosen.parentElement.querySelectorAll(":scope > details.arm")) arm.open = arm === chosen;
  chosen.scrollIntoView();
}
addEventListener("hashchange", show);
// For browsers that print what is folded as folded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
show();
