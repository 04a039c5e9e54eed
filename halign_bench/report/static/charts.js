// A panel of a figure as ECharts draws it: points with intervals, bands, lines to compare with.
"use strict";

halign.charts = (() => {
  const { element, number, svg } = halign;
  // Outlines in a box of 10 by 10, as the figures for a paper mark their methods.
  const MARKERS = {
    o: "M5,0A5,5,0,1,1,5,10A5,5,0,1,1,5,0Z", s: "M0,0H10V10H0Z", "^": "M5,0L10,10H0Z", D: "M5,0L10,5L5,10L0,5Z",
    v: "M0,0H10L5,10Z", P: "M3,0H7V3H10V7H7V10H3V7H0V3H3Z", X: "M2,0L5,3L8,0L10,2L7,5L10,8L8,10L5,7L2,10L0,8L3,5L0,2Z",
    "<": "M10,0V10L0,5Z", ">": "M0,0L10,5L0,10Z", p: "M5,0L10,4L8,10H2L0,4Z", h: "M5,0L10,3V7L5,10L0,7V3Z",
    "*": "M5,0L6,4H10L7,6L8,10L5,7.5L2,10L3,6L0,4H4Z",
  };
  const MANY = 40; // points from which on a line is pointed at by its x, and has no marks

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function theme() {
    return { text: colour("--text"), faint: colour("--faint"), line: colour("--line"), page: colour("--page") };
  }

  // Of a method as in all figures; of anything else by its place in the panel.
  function styleOf(name, place, styles, look) {
    const own = styles.methods[name] ?? styles.others[place % styles.others.length];
    return { ...own, colour: own.colour ?? look.text };
  }

  const numbers = (point) => [
    point.x ?? 0, point.y ?? 0, ...(point.x_range ?? [null, null]), ...(point.y_range ?? [null, null]),
  ];

  function described(panel, name, point) {
    const range = (given) => (given ? ` [${number(given[0])}, ${number(given[1])}]` : "");
    const lines = [name, `${panel.x}: ${number(point.x ?? 0)}${range(point.x_range)}`];
    if (!panel.names) lines.push(`${panel.y || "y"}: ${number(point.y ?? 0)}${range(point.y_range)}`);
    if (point.note) lines.push(point.note);
    return lines;
  }

  // The text that stands by the pointer: elements, not markup, so that a name is never taken for any.
  function tooltip(panel, parameters) {
    const given = Array.isArray(parameters) ? parameters : [parameters];
    const box = element("div", { className: "tooltip" });
    for (const one of given) {
      if (!one.data?.point) continue;
      for (const [i, line] of described(panel, one.data.name, one.data.point).entries()) {
        box.append(element(i ? "div" : "strong", {}, line));
      }
    }
    return box.childNodes.length ? box : null;
  }

  function marks(series, style, look) {
    return series.points.map((point) => ({
      value: numbers(point), point, name: series.name,
      itemStyle: { color: point.told ? style.colour : look.page, borderColor: style.colour, borderWidth: 1.5 },
    }));
  }

  function line(series, style, look) {
    const many = series.points.length > MANY;
    return {
      type: "line", name: series.name, data: marks(series, style, look), silent: Boolean(series.faint),
      showSymbol: !many && !series.faint, symbol: `path://${MARKERS[style.marker]}`, symbolSize: 9,
      z: series.faint ? 2 : 4, itemStyle: { color: style.colour },
      sampling: many ? "lttb" : undefined, animation: false,
      lineStyle: {
        color: style.colour, type: style.dash.length ? style.dash : "solid",
        width: series.faint ? 0.7 : 2, opacity: series.faint ? 0.4 : 1,
      },
    };
  }

  function points(series, style, look) {
    return {
      type: "scatter", name: series.name, data: marks(series, style, look), symbol: `path://${MARKERS[style.marker]}`,
      symbolSize: 10, z: 4, animation: false,
    };
  }

  function intervals(series, style) {
    const bars = (_, api) => {
      const at = (i) => api.value(i);
      const stroke = (from, to) => ({
        type: "line", shape: { x1: from[0], y1: from[1], x2: to[0], y2: to[1] },
        style: { stroke: style.colour, lineWidth: 1.2, opacity: 0.7 },
      });
      const children = [];
      if (!Number.isNaN(at(2))) children.push(stroke(api.coord([at(2), at(1)]), api.coord([at(3), at(1)])));
      if (!Number.isNaN(at(4))) children.push(stroke(api.coord([at(0), at(4)]), api.coord([at(0), at(5)])));
      return { type: "group", children };
    };
    return custom(series, bars);
  }

  function band(series, style) {
    const quarter = (parameters, api) => {
      const [from, to] = [series.points[parameters.dataIndex], series.points[parameters.dataIndex + 1]];
      if (!from?.y_range || !to?.y_range) return null;
      const corners = [[from, 0], [to, 0], [to, 1], [from, 1]];
      return {
        type: "polygon", style: { fill: style.colour, opacity: 0.13 },
        shape: { points: corners.map(([point, end]) => api.coord([point.x ?? 0, point.y_range[end]])) },
      };
    };
    return custom(series, quarter);
  }

  function custom(series, renderItem) {
    return {
      type: "custom", data: series.points.map(numbers), renderItem, silent: true, z: 1, clip: true,
      encode: { x: [0, 2, 3], y: [1, 4, 5], tooltip: [] }, animation: false,
    };
  }

  // The quarter in which both are better than what the lines stand for.
  function corner([right, up], look) {
    const renderItem = ({ coordSys: { x, y, width, height } }, api) => {
      const [across, down] = api.coord([0, 0]);
      const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
      const [left, top] = [clamp(across, x, x + width), clamp(down, y, y + height)];
      const shape = {
        x: right ? left : x, width: right ? x + width - left : left - x,
        y: up ? y : top, height: up ? top - y : y + height - top,
      };
      return { type: "rect", shape, style: { fill: look.faint, opacity: 0.1 } };
    };
    return { type: "custom", data: [[0, 0]], renderItem, silent: true, z: 0, animation: false };
  }

  function guides(panel, look, whole) {
    const data = [...(panel.at_x ?? []).map((x) => ({ xAxis: x })), ...(panel.at_y ?? []).map((y) => ({ yAxis: y }))];
    const found = [];
    if (data.length) {
      found.push({
        type: "line", data: [], silent: true, animation: false, z: 0,
        markLine: {
          data, silent: true, symbol: "none", label: { show: false }, animation: false,
          lineStyle: { color: look.faint, type: "solid", width: 1 },
        },
      });
    }
    if (panel.better) found.push(corner(panel.better, look));
    if (panel.steps && whole) { // the front is that of all methods
      found.push({
        type: "line", data: panel.steps, showSymbol: false, silent: true, animation: false, z: 1,
        lineStyle: { color: look.faint, width: 1.2, type: "solid" },
      });
    }
    return found;
  }

  function axes(panel, look) {
    const shared = {
      nameTextStyle: { color: look.faint }, axisLabel: { color: look.faint, hideOverlap: true },
      axisLine: { show: true, onZero: false, lineStyle: { color: look.line } },
      splitLine: { lineStyle: { color: look.line, opacity: 0.5 } },
    };
    const every = () => [...new Set(panel.series.flatMap((one) => one.points.map((point) => point.x)))];
    const ticks = panel.log ? every() : undefined;
    const scale = panel.log
      ? { type: "log", min: 0.9 * Math.min(...ticks), max: 1.1 * Math.max(...ticks) }
      : { type: "value", scale: true };
    const x = {
      ...shared, ...scale, name: panel.x, nameLocation: "middle", nameGap: 26,
      inverse: Boolean(panel.backwards), splitNumber: 4,
      axisLabel: { ...shared.axisLabel, customValues: ticks, formatter: (value) => String(number(value)) },
      axisTick: { customValues: ticks }, splitLine: { show: false },
    };
    const y = panel.names
      ? {
        ...shared, type: "category", data: panel.names, inverse: true,
        axisLabel: { color: look.text, width: 110, overflow: "truncate", interval: 0 },
      }
      : {
        ...shared, type: "value", scale: true, name: panel.y, nameLocation: "end", splitNumber: 4,
        nameTextStyle: { color: look.faint, align: "left" },
      };
    if (panel.names) Object.assign(x, { min: 0, max: 1, interval: 0.25 }); // shares
    if (panel.backwards) Object.assign(x, { min: 0, max: 1 }); // noise levels
    return { xAxis: x, yAxis: y };
  }

  // ECharts' option for a panel with these methods; what is no method is always shown.
  function option(panel, shown, styles) {
    const look = theme();
    const visible = panel.series.filter((series) => !(series.name in styles.methods) || shown.has(series.name));
    const places = [...new Set(visible.map((series) => series.name))];
    const drawn = panel.names ? { ...panel, names: panel.names.filter((name) => shown.has(name)) } : panel;
    const many = visible.some((series) => series.points.length > MANY);
    const series = visible.flatMap((one) => {
      const style = styleOf(one.name, places.indexOf(one.name), styles, look);
      const ranged = one.points.some((point) => point.x_range || point.y_range);
      const main = one.line ? line(one, style, look) : points(one, style, look);
      if (!ranged) return [main];
      return [one.line && one.points.length > 1 ? band(one, style) : intervals(one, style), main];
    });
    const others = places.filter((name) => !(name in styles.methods)); // methods stand above all figures
    return {
      ...axes(drawn, look),
      legend: {
        show: others.length > 1, data: others, top: 0, right: 8, itemWidth: 26, itemHeight: 9, selectedMode: false,
        textStyle: { color: look.text },
      },
      series: [...series, ...guides(panel, look, visible.length === panel.series.length)], animation: false,
      grid: { left: 8, right: 16, top: panel.names ? 8 : 30, bottom: 34, containLabel: true, outerBoundsMode: "same" },
      textStyle: { fontFamily: "system-ui, sans-serif" },
      tooltip: {
        trigger: many ? "axis" : "item", confine: true, className: "chart-tooltip", transitionDuration: 0,
        backgroundColor: look.page, borderColor: look.line, textStyle: { color: look.text },
        formatter: (parameters) => tooltip(panel, parameters),
      },
    };
  }

  // Line and mark of a method, for the list of methods.
  function swatch(style) {
    const shade = style.colour ?? "currentColor";
    const picture = svg("svg", { viewBox: "0 0 34 12", width: 34, height: 12, "aria-hidden": "true", class: "swatch" });
    picture.append(
      svg("line", {
        x1: 0, y1: 6, x2: 34, y2: 6, stroke: shade, "stroke-width": 2, "stroke-dasharray": style.dash.join(" "),
      }),
      svg("path", { d: MARKERS[style.marker], transform: "translate(12 1)", fill: shade, stroke: shade }),
    );
    return picture;
  }

  return { described, option, swatch };
})();
