// The defects of the page as printed on paper of this width, a sentence each.
(() => {
  const found = [];
  const name = (element) => `${element.nodeName} ${element.id || element.textContent.trim().slice(0, 60)}`;
  // A4 without the margins, in CSS pixels: 297 mm less 2 x 15.
  const height = ((297 - 2 * 15) / 25.4) * 96;
  const style = getComputedStyle;
  if (style(document.body).backgroundColor !== "rgb(255, 255, 255)") found.push("the paper is not white");
  for (const element of document.querySelectorAll("body, body *:not(svg *)")) {
    const box = element.getBoundingClientRect();
    if (!box.width) continue;
    const right = Math.max(box.right, box.left + element.scrollWidth);
    if (box.left < -0.5 || right > innerWidth + 0.5) found.push(`${name(element)} leaves the paper`);
  }
  for (const shown of document.querySelectorAll("details > :not(summary), .paper")) {
    if (!shown.getClientRects().length || !shown.checkVisibility({ contentVisibilityAuto: true }))
      found.push(`${name(shown)} is not printed`);
  }
  for (const whole of document.querySelectorAll("tr, svg, figure, [role=img], h1, h2, h3, h4, summary")) {
    if (style(whole).breakInside !== "avoid") found.push(`${name(whole)} may be cut`);
  }
  for (const one of document.querySelectorAll("tr, svg")) {
    if (one.getBoundingClientRect().height > height) found.push(`${name(one)} has no room on one page`);
  }
  for (const above of document.querySelectorAll("h1, h2, h3, h4, summary, caption, thead tr")) {
    if (style(above).breakAfter !== "avoid") found.push(`${name(above)} may be left alone at a page's foot`);
  }
  for (const useless of document.querySelectorAll("nav.arms")) {
    if (useless.getClientRects().length) found.push(`${name(useless)} is of no use on paper`);
  }
  return found;
})()
