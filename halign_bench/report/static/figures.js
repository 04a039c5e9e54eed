// Figures are drawn when they come into sight, again when methods are chosen or light turns to dark.
"use strict";

(() => {
  const { charts, data, element, script, whenNear } = halign;
  const FEW = 8; // methods shown at first; more lines than these hide each other
  const drawn = new Map(); // element of a panel -> what draws it again
  let shown = new Set();

  const figures = [...document.querySelectorAll("section[data-figure]")];
  if (!figures.length) return;
  const styles = data("styles").then((known) => {
    chooser(known);
    return known;
  });

  function chooser(known) {
    const fieldset = document.getElementById("figure-methods");
    const names = Object.keys(known.methods);
    shown = new Set(names.slice(0, FEW));
    const boxes = names.map((name) => {
      const box = element("input", { type: "checkbox", checked: shown.has(name), value: name });
      box.addEventListener("change", () => choose(boxes.filter((one) => one.checked).map((one) => one.value)));
      fieldset.append(element("label", {}, box, charts.swatch(known.methods[name]), name));
      return box;
    });
    for (const [text, wanted] of [["all", true], ["none", false]]) {
      const button = element("button", { type: "button", textContent: text, "aria-label": `Show ${text} methods` });
      button.addEventListener("click", () => {
        for (const box of boxes) box.checked = wanted;
        choose(wanted ? names : []);
      });
      fieldset.append(button);
    }
    fieldset.hidden = false;
  }

  function choose(names) {
    shown = new Set(names);
    redraw();
  }

  function redraw() {
    for (const draw of drawn.values()) draw();
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  for (const section of figures) {
    // The room that the panels will take, so that what lies below does not move when they come.
    const holder = section.querySelector(".panels");
    const places = Array.from({ length: Number(holder.dataset.panels) }, () => element("div", { className: "panel" }));
    holder.replaceChildren(...places);
    for (const [number, place] of places.entries()) whenNear(place, () => panel(section, place, number));
    const values = section.querySelector("details.values");
    values.addEventListener("toggle", () => table(section, values), { once: true });
  }

  async function panel(section, place, number) {
    const [known, panels] = await Promise.all([
      styles, data(section.dataset.figure), script("static/vendor/echarts.min.js"),
    ]);
    const of = panels[number];
    const canvas = element("div", {
      className: "canvas", tabIndex: 0, role: "img",
      "aria-label": `${of.title}; ${of.x} across, ${of.y || "methods"} up. Arrow keys tell values.`,
    });
    if (of.names) canvas.style.height = `${Math.max(220, 60 + 18 * of.names.length)}px`;
    place.replaceChildren(element("h4", {}, of.title), canvas);
    const chart = echarts.init(canvas, null, { renderer: "canvas" });
    const draw = () => chart.setOption(charts.option(of, shown, known), { notMerge: true });
    draw();
    drawn.set(place, draw);
    new ResizeObserver(() => chart.resize()).observe(canvas);
    place.append(keys(chart, canvas, of));
  }

  // Arrow keys go through the points; a line below tells where they are, also to who cannot see.
  function keys(chart, canvas, of) {
    const said = element("p", { className: "said", "aria-live": "polite" });
    let at = -1;
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const points = chart.getOption().series.flatMap((series, seriesIndex) => (
        series.silent ? [] : series.data.map((one, dataIndex) => ({ seriesIndex, dataIndex, one }))
      )).filter(({ one }) => one.point);
      if (!points.length) return;
      at = (at + step + points.length) % points.length;
      const { seriesIndex, dataIndex, one } = points[at];
      chart.dispatchAction({ type: "showTip", seriesIndex, dataIndex });
      said.textContent = charts.described(of, one.name, one.point).join(", ");
    });
    canvas.addEventListener("blur", () => chart.dispatchAction({ type: "hideTip" }));
    return said;
  }

  async function table(section, values) {
    const panels = await data(section.dataset.figure);
    const row = (of, one, point) => [
      of.title, one.name, point.x ?? 0, ...(point.x_range ?? ["", ""]),
      of.names ? "" : point.y ?? 0, ...(point.y_range ?? ["", ""]), point.note ?? "",
    ];
    const rows = panels.flatMap((of) => (
      of.series.filter((one) => !one.faint).flatMap((one) => one.points.map((point) => row(of, one, point)))
    ));
    const titles = ["panel", "series", "x", "x from", "x to", "y", "y from", "y to", "note"];
    const name = `Values of ${section.dataset.figure}`;
    const made = element("table", { className: "row-border compact" }, element("caption", { className: "said" }, name));
    values.append(element("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": name }, made));
    new DataTable(made, {
      data: rows, columns: titles.map((title) => ({ title, render: DataTable.render.text() })),
      autoWidth: false, order: [], pageLength: 10, language: { search: "Filter" },
      layout: { topStart: null, topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
    });
  }
})();
