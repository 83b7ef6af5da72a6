// Light or dark, before anything is painted; this is why it is no module.
"use strict";

(() => {
  const NAME = "hybrid-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try {
      return localStorage.getItem(NAME);
    } catch {
      return null; // this browser keeps nothing; the system decides
    }
  }

  function keep(theme) {
    // what the system says anyway is not kept, so that the page goes on following it
    const follows = theme === (system.matches ? "dark" : "light");
    try {
      follows ? localStorage.removeItem(NAME) : localStorage.setItem(NAME, theme);
    } catch {
      // it lasts until the page is left
    }
  }

  function shown() {
    return root.dataset.theme ?? (system.matches ? "dark" : "light");
  }

  const theme = stored();
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;

  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = shown() === "dark" ? "light" : "dark";
      keep(root.dataset.theme);
    });
  });
})();
