// Tables that are in the page already become sortable and filterable, by DataTables.
"use strict";

(() => {
  const { element } = halign;

  // What was not measured stands last, whichever way a column is sorted.
  const known = (value) => value !== "" && Number.isFinite(Number(value));
  const last = (compare) => (a, b) => (known(a) && known(b) ? compare(Number(a), Number(b)) : known(b) - known(a));
  DataTable.type("score", { order: { asc: last((a, b) => a - b), desc: last((a, b) => b - a) } });

  // By the headers' data-first: a number whose first sorting begins with its better side, or text.
  function columns(table) {
    return [...table.tHead.rows[0].cells].map((header) => {
      const kind = header.dataset.first;
      const visible = !("leftOut" in header.dataset); // it says the same in every row
      if (kind === "high") return { visible, type: "score", orderSequence: ["desc", "asc", ""] };
      if (kind === "low" || kind === "number") return { visible, type: "score", orderSequence: ["asc", "desc", ""] };
      if (kind === "none") return { visible, orderable: false };
      return kind === "text" ? { visible, type: "string", orderSequence: ["asc", "desc", ""] } : null;
    });
  }

  function enhance(table, options = {}) {
    return new DataTable(table, {
      autoWidth: false, columns: columns(table), info: true, order: [], orderMulti: false, paging: false,
      language: { search: "Filter", info: "_TOTAL_ rows", infoFiltered: "of _MAX_", infoEmpty: "no rows" },
      layout: { topStart: null, topEnd: "search", bottomStart: "info", bottomEnd: null },
      ...options,
    });
  }

  for (const table of document.querySelectorAll("table[data-table]")) {
    const pageLength = Number(table.dataset.page);
    const paged = table.tBodies[0].rows.length > pageLength;
    enhance(table, paged ? {
      paging: true, pageLength, layout: { topStart: null, topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
    } : {});
  }

  const leaderboard = enhance(document.getElementById("leaderboard-table"), {
    layout: {
      topStart: () => document.getElementById("leaderboard-controls"), topEnd: "search",
      bottomStart: "info", bottomEnd: null,
    },
  });
  const controls = document.getElementById("leaderboard-controls");
  controls.hidden = false;
  filter("leaderboard-nfe", 1, (text, wanted) => !wanted || text === wanted);
  filter("leaderboard-status", 2, (text, wanted) => !wanted || text === wanted);
  const front = document.getElementById("leaderboard-front");
  leaderboard.search.fixed("front", (_text, _data, index) => (
    !front.checked || leaderboard.row(index).node().querySelector(".front") !== null
  ));
  front.addEventListener("change", () => leaderboard.draw());

  function filter(id, column, keeps) {
    const select = document.getElementById(id);
    if (select === null) return;
    leaderboard.column(column).search.fixed(id, (text) => keeps(text.trim(), select.value));
    select.addEventListener("change", () => leaderboard.draw());
    leaderboard.draw();
  }

  const fieldset = document.getElementById("leaderboard-columns");
  leaderboard.columns().every(function () {
    if (this.index() === 0) return;
    const box = element("input", { type: "checkbox", checked: this.visible() });
    box.addEventListener("change", () => this.visible(box.checked));
    fieldset.append(element("label", {}, box, ` ${this.header().textContent}`));
  });

  halign.leaderboard = leaderboard;
})();
