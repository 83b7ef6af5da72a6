// How many texts and edges there are, and those that stand out too little from what is behind them, by WCAG 2.2.
const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

function over(color, ground) {
  for (const paint of [`rgb(${ground})`, color]) {
    pixel.fillStyle = paint;
    pixel.fillRect(0, 0, 1, 1);
  }
  return [...pixel.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

function behind(element) {
  if (!element) return [255, 255, 255];
  return over(getComputedStyle(element).backgroundColor, behind(element.parentElement));
}

function luminance(rgb) {
  const [red, green, blue] = rgb.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function ratio(color, ground) {
  const [one, other] = [luminance(over(color, ground)) + 0.05, luminance(ground) + 0.05];
  return Math.max(one, other) / Math.min(one, other);
}

const found = [];
for (const element of document.body.querySelectorAll("*")) {
  if (!element.checkVisibility() || element.closest(".unseen")) continue;
  const style = getComputedStyle(element);
  const [inside, outside] = [behind(element), behind(element.parentElement)];
  const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (hasText) found.push([element.textContent.trim(), ratio(style.color, inside), 4.5]);
  if (element.placeholder) {
    found.push([element.placeholder, ratio(getComputedStyle(element, "::placeholder").color, inside), 4.5]);
  }
  if (element.matches("button, input, select, #fields textarea, #card")) {
    const edge = Math.max(ratio(style.borderColor, outside), ratio(style.backgroundColor, outside));
    found.push([element.id || element.textContent, edge, 3]);
  }
}
return [found.length, found.filter(([, ratio, least]) => ratio < least)];
