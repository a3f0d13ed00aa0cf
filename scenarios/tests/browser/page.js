// The defects of the page as it is displayed now, a sentence each.
(() => {
  const found = [];
  const name = (element) => `${element.nodeName} ${element.id || element.textContent.trim().slice(0, 60)}`;
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) found.push(`the page is ${root.scrollWidth} wide, of ${innerWidth}`);
  for (const element of document.querySelectorAll("body *:not(svg *)")) {
    // The content of a box that scrolls may be wider than the page.
    const box = element.getBoundingClientRect();
    if (element.parentElement.closest(".wide") || !box.width) continue;
    if (box.left < -0.5 || box.right > innerWidth + 0.5) found.push(`${name(element)} leaves the page`);
  }
  for (const svg of document.querySelectorAll("svg")) {
    const texts = [...svg.querySelectorAll("text")].map((text) => [text, text.getBBox()]);
    const { width, height } = svg.viewBox.baseVal;
    texts.forEach(([text, box], at) => {
      if (box.x < 0 || box.y < 0 || box.x + box.width > width || box.y + box.height > height)
        found.push(`${name(text)} leaves the drawing`);
      for (const [other, its] of texts.slice(at + 1)) {
        const wide = Math.min(box.x + box.width, its.x + its.width) - Math.max(box.x, its.x);
        const high = Math.min(box.y + box.height, its.y + its.height) - Math.max(box.y, its.y);
        if (wide > 1 && high > 4) found.push(`${name(text)} covers ${name(other)}`);
      }
    });
  }
  // WCAG 2.2, 1.4.3: the contrast of text to its background is at least 4.5.
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (!element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const [one, other] = [element.closest("svg") ? style.fill : style.color, behind(element)].map(luminance);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) found.push(`${name(element)} has a contrast of ${contrast.toFixed(1)}`);
  }
  let before = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    const level = Number(heading.nodeName[1]);
    if (level > before + 1) found.push(`${name(heading)} has no heading above it`);
    before = level;
  }
  for (const drawing of document.querySelectorAll("svg:not([aria-hidden]), [role=img]")) {
    if (!drawing.getAttribute("aria-label")) found.push(`${name(drawing)} says nothing to those who do not see it`);
  }
  return found;
})()
