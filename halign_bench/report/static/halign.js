// What all parts of the page share. Files are read by script tags, because a page from disk cannot fetch.
"use strict";

window.halign = (() => {
  const root = new URL("../", document.currentScript.src);
  const waiting = new Map(); // name -> the promise's resolve, of files that were asked for
  const asked = new Map(); // path -> promise
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // A script of this report, once; the promise resolves when it ran.
  function script(path) {
    if (!asked.has(path)) {
      asked.set(path, new Promise((resolve, reject) => {
        const element = document.createElement("script");
        element.src = new URL(path, root);
        element.onload = resolve;
        element.onerror = () => reject(new Error(`${path} is missing`));
        document.head.append(element);
      }));
    }
    return asked.get(path);
  }

  // The data in NAME.js of a folder of this report, which calls `receive`.
  async function data(name, folder = "data/") {
    if (!waiting.has(name)) {
      const entry = {};
      entry.promise = new Promise((resolve) => { entry.resolve = resolve; });
      waiting.set(name, entry);
    }
    await script(`${folder}${name}.js`);
    return waiting.get(name).promise;
  }

  // An element with properties and children; text is text, whatever is in it.
  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function svg(tag, properties) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
    return made;
  }

  // Calls `act` once, when the element comes near the part of the page that is seen.
  function whenNear(target, act) {
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      act();
    }, { rootMargin: "300px" });
    observer.observe(target);
  }

  const number = (value) => (value === null || value === undefined ? "-" : String(Number(value.toPrecision(4))));

  function themed() {
    document.documentElement.classList.toggle("dark", dark.matches);
  }
  themed();
  dark.addEventListener("change", themed);

  return {
    data, element, number, script, svg, whenNear,
    receive: (name, value) => waiting.get(name).resolve(value),
    url: (path) => new URL(path, root).href,
  };
})();
