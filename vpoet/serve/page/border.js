"use strict";
// The picture within its border: a handle on each side, to drag or to move with the arrow keys, beside number fields.

const SIDES = ["left", "top", "right", "bottom"];
const OPPOSITE = { left: "right", right: "left", top: "bottom", bottom: "top" };

class Border {
  // stage: an element with an <img> of what lies within; fields: number inputs by side; size(): [height, width] of the
  // result in pixels.
  constructor(stage, fields, size) {
    this.stage = stage;
    this.image = stage.querySelector("img");
    this.fields = fields;
    this.size = size;
    this.handles = {};
    for (const side of SIDES) {
      const handle = document.createElement("div");
      handle.className = `handle ${side}`;
      handle.tabIndex = 0;
      handle.setAttribute("role", "slider");
      handle.setAttribute("aria-label", `Pixels to add: ${side}`);
      handle.setAttribute("aria-orientation", this.across(side) ? "horizontal" : "vertical");
      handle.setAttribute("aria-valuemin", 0);
      handle.onkeydown = (event) => this.key(event, side);
      handle.onpointerdown = (event) => { event.preventDefault(); handle.focus(); handle.setPointerCapture(event.pointerId); };
      handle.onpointermove = (event) => { if (handle.hasPointerCapture(event.pointerId)) this.drag(event, side); };
      stage.append(handle);
      this.handles[side] = handle;
      fields[side].oninput = () => this.show();
    }
  }

  across(side) { return side === "left" || side === "right"; }

  value(side) { return Math.max(0, Math.round(Number(this.fields[side].value)) || 0); }

  most(side) { // something is left between the two
    const [height, width] = this.size();
    return Math.max(0, (this.across(side) ? width : height) - this.value(OPPOSITE[side]) - 1);
  }

  set(side, value) {
    this.fields[side].value = Math.min(this.most(side), Math.max(0, Math.round(value)));
    this.show();
  }

  key(event, side) {
    const outward = { left: "ArrowLeft", top: "ArrowUp", right: "ArrowRight", bottom: "ArrowDown" };
    const steps = {
      [outward[side]]: -1, [outward[OPPOSITE[side]]]: 1, PageDown: -8, PageUp: 8, Home: -Infinity, End: Infinity,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.set(side, this.value(side) + steps[event.key]);
  }

  drag(event, side) {
    const box = this.stage.getBoundingClientRect(), [height, width] = this.size();
    const place = { left: event.clientX - box.left, right: box.right - event.clientX,
      top: event.clientY - box.top, bottom: box.bottom - event.clientY }[side];
    this.set(side, place / (this.across(side) ? box.width / width : box.height / height));
  }

  show() {
    const [height, width] = this.size();
    this.stage.style.aspectRatio = `${width} / ${height}`;
    const inset = {};
    for (const side of SIDES) {
      const value = Math.min(this.value(side), this.most(side));
      inset[side] = `${100 * value / (this.across(side) ? width : height)}%`;
      this.handles[side].setAttribute("aria-valuenow", value);
      this.handles[side].setAttribute("aria-valuemax", this.most(side));
      this.handles[side].setAttribute("aria-valuetext", `${value} pixels`);
    }
    Object.assign(this.image.style, { left: inset.left, top: inset.top,
      width: `calc(100% - ${inset.left} - ${inset.right})`, height: `calc(100% - ${inset.top} - ${inset.bottom})` });
    for (const side of SIDES) this.handles[side].style[side] = inset[side];
    for (const side of ["left", "right"])
      Object.assign(this.handles[side].style, { top: inset.top, bottom: inset.bottom });
    for (const side of ["top", "bottom"])
      Object.assign(this.handles[side].style, { left: inset.left, right: inset.right });
  }
}
