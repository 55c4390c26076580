// A histogram (log density) with the levels of a grid over it; dragging an edge of the grid clips the range.
function render({ model, el }) {
  const W = 640, H = 240, PAD = 24;
  const space = "http://www.w3.org/2000/svg"; // a name, not an address: nothing is fetched
  const svg = document.createElementNS(space, "svg");
  const title = document.createElement("div");
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.setAttribute("role", "img");
  svg.style.cssText = "width:100%;height:240px;touch-action:none";
  el.append(title, svg);
  const add = (name, attributes) => {
    const node = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    svg.append(node);
    return node;
  };
  const reach = () => model.get("reach") || 1;
  const x = (value) => PAD + ((value / reach() + 1) / 2) * (W - 2 * PAD);
  const draw = () => {
    svg.replaceChildren();
    title.textContent = model.get("title");
    svg.setAttribute("aria-label", model.get("title"));
    const edges = model.get("edges"), density = model.get("density");
    const used = density.filter((d) => d > 0);
    if (!used.length) return;
    const low = Math.log10(Math.min(...used) / 2), high = Math.log10(Math.max(...used) * 2);
    const y = (d) => (d > 0 ? H - PAD - ((Math.log10(d) - low) / (high - low)) * (H - 2 * PAD) : H - PAD);
    density.forEach((d, i) => add("rect", {
      x: x(edges[i]), y: y(d), width: Math.max(0.5, x(edges[i + 1]) - x(edges[i])), height: H - PAD - y(d),
      fill: "#0072B2", "fill-opacity": 0.6,
    }));
    for (const level of model.get("levels")) {
      add("line", { x1: x(level), x2: x(level), y1: PAD, y2: H - PAD, stroke: "#D55E00", "stroke-opacity": 0.7 });
    }
    for (const edge of [model.get("low"), model.get("high")]) {
      const handle = add("rect", { x: x(edge) - 5, y: PAD, width: 10, height: H - 2 * PAD, fill: "#7f8790",
                                   "fill-opacity": 0.35, cursor: "ew-resize" });
      handle.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); dragging = true; });
    }
    const say = (x, y, anchor, words) => {
      add("text", { x, y, "font-size": 12, "text-anchor": anchor, fill: "#7f8790" }).textContent = words;
    };
    const each = model.get("each"), which = each > 1 ? ` (1 in ${each})` : "";
    say(PAD, PAD - 9, "start", `density, log; orange: levels of the grid${which}; grey: range kept, drag an edge`);
    say(x(reach() / 2), H - 6, "middle", "value of the layer's input");
    for (const value of [-reach(), 0, reach()]) {
      const text = add("text", { x: x(value), y: H - 6, "font-size": 12, "text-anchor": "middle", fill: "#7f8790" });
      text.textContent = value.toPrecision(3);
    }
  };
  let dragging = false;
  svg.addEventListener("pointermove", (event) => {
    if (!dragging) return;
    const box = svg.getBoundingClientRect();
    const place = (((event.clientX - box.left) / box.width) * W - PAD) / (W - 2 * PAD);
    const clip = Math.max(0.05, Math.min(1, Math.abs(2 * place - 1)));
    model.set("clip", Math.round(clip * 100) / 100);
    model.save_changes();
  });
  svg.addEventListener("pointerup", () => { dragging = false; });
  model.on("change:density change:levels change:low change:high change:title", draw);
  draw();
  return () => model.off(null, draw);
}
export default { render };
