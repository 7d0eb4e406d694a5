"use strict";
// Clips on the page: they play in canvases, all by one clock, with what surprised the model under them.

const make = (name, more = {}, ...children) => {
  const found = Object.assign(document.createElement(name), more);
  found.append(...children);
  return found;
};

class Clip { // frames of one size, which come in any order
  constructor(fps) {
    this.fps = fps || 1;
    this.frames = [];
  }

  put(index, data) {
    this.frames[index] = data;
    wake();
  }

  async strip(first, count, height, width, png) { // frames one below the other
    const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
    const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const canvas = make("canvas", { width, height: height * count });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(picture, 0, 0);
    for (let i = 0; i < count; i++) this.put(first + i, pen.getImageData(0, i * height, width, height));
  }

  raw(bytes, count, height, width) { // uint8 [T, H, W, 3]
    this.frames = Array.from({ length: count }, (_, index) => {
      const image = new ImageData(width, height), pixels = image.data;
      for (let from = index * height * width * 3, to = 0; to < pixels.length; to += 4) {
        pixels[to] = bytes[from++];
        pixels[to + 1] = bytes[from++];
        pixels[to + 2] = bytes[from++];
        pixels[to + 3] = 255;
      }
      return image;
    });
    wake();
  }

  at(seconds) { // the frame that is due, of those that are there, and in how many seconds it is another
    const there = this.frames.findIndex((frame) => !frame);
    const count = there < 0 ? this.frames.length : there;
    if (!count) return [-1, Infinity];
    const rest = Math.min(1, count / this.fps); // the last frame stays for a while
    const whole = count / this.fps + rest, within = seconds % whole;
    const index = Math.min(count - 1, Math.floor(within * this.fps));
    if (count === 1 || still.matches) return [still.matches ? 0 : index, Infinity];
    return [index, (index < count - 1 ? (index + 1) / this.fps : whole) - within];
  }
}

const playing = new Set(); // {clip, canvas, onframe}
const still = matchMedia("(prefers-reduced-motion: reduce)");
let hold = null; // {clip, frame}: a frame that is looked at

function paint(view, index) {
  const frame = view.clip.frames[index];
  if (!frame || (view.shown === frame)) return;
  if (view.canvas.width !== frame.width || view.canvas.height !== frame.height) {
    view.canvas.width = frame.width;
    view.canvas.height = frame.height;
  }
  view.canvas.getContext("2d").putImageData(frame, 0, 0);
  view.shown = frame;
  if (view.onframe) view.onframe(index);
}

// Nothing is done for clips that are out of sight, nor between one frame and the next.
let timer = 0;
const inSight = new Set(); // canvases
const sight = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) isIntersecting ? inSight.add(target) : inSight.delete(target);
  wake();
});

function play(view) {
  playing.add(view);
  sight.observe(view.canvas);
}

function stop(view) {
  playing.delete(view);
  sight.unobserve(view.canvas);
  inSight.delete(view.canvas);
}

function wake(seconds = 0) {
  clearTimeout(timer);
  timer = setTimeout(() => requestAnimationFrame(tick), 1000 * seconds);
}

function tick(now) {
  let next = Infinity;
  for (const view of playing) {
    if (!view.canvas.isConnected) { stop(view); continue; }
    if (!inSight.has(view.canvas)) continue;
    const [index, wait] = hold && hold.clip === view.clip ? [hold.frame, Infinity] : view.clip.at(now / 1000);
    if (index >= 0) paint(view, index);
    next = Math.min(next, wait);
  }
  if (next < Infinity) wake(next);
}
still.onchange = () => wake();

// Bits per token of each cell of time, as a curve that a pointer or the arrow keys go along.
function curve(about, clip) {
  const svgNames = "http://www.w3.org/2000/svg";
  const bits = about.surprise.filter(([, , , tokens]) => tokens).map(([first, frames, nats, tokens]) =>
    ({ first, frames, bits: nats / tokens / Math.LN2 }));
  const box = make("figure", { className: "curve" });
  if (!bits.length) return box;
  box.tabIndex = 0;
  box.title = "How much each part surprised the model, in bits a token: the taller, the less sure it was. " +
    "Point at a frame to hold it.";
  const most = Math.max(...bits.map((each) => each.bits)), total = about.frames;
  const svg = document.createElementNS(svgNames, "svg");
  svg.setAttribute("viewBox", `0 0 ${total} 30`);
  svg.setAttribute("preserveAspectRatio", "none");
  const add = (name, attributes) => {
    const shape = document.createElementNS(svgNames, name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    svg.append(shape);
    return shape;
  };
  for (const each of bits) {
    const tall = 28 * each.bits / most;
    add("rect", { x: each.first, width: each.frames, y: 30 - tall, height: tall, class: "bar" });
  }
  const prompts = [[0, about.asked.prompt || ""], ...(about.asked.story || []).map((line) => {
    const [, at, text] = /^\s*(\d+)\s*:\s*(.*)$/s.exec(line);
    return [Number(at), text];
  })];
  for (const [at] of prompts.slice(1)) // where the prompt changes
    add("rect", { x: at, width: Math.max(0.15, total / 400), y: 0, height: 30, class: "change" });
  const under = (index) => { // the prompt of a frame, and what all of its cells took
    const which = prompts.findLastIndex(([at]) => at <= index), [at, text] = prompts[which];
    const stop = which + 1 < prompts.length ? prompts[which + 1][0] : total;
    const sum = about.surprise.filter(([first, frames]) => at < first + frames && first + frames <= stop)
      .reduce(([nats, tokens], [, , more, and]) => [nats + more, tokens + and], [0, 0]);
    return sum[1] ? `${(sum[0] / sum[1] / Math.LN2).toFixed(2)} in all of “${text}”` : "";
  };
  const mark = add("rect", { x: 0, width: 1, y: 0, height: 30, class: "mark" });
  const words = make("span"), whole = make("span"); // of a frame, and of its prompt
  const tell = (index) => {
    const here = bits.find((each) => each.first <= index && index < each.first + each.frames);
    mark.setAttribute("x", index);
    words.textContent = `frame ${index} · ` + (here ? `surprise ${here.bits.toFixed(2)} bits` : "given");
    if (prompts.length > 1) whole.textContent = under(index) || "\u00a0"; // its line stays: nothing jumps
  };
  const look = (index) => {
    hold = { clip, frame: Math.max(0, Math.min(total - 1, index)) };
    tell(hold.frame);
    wake();
  };
  svg.onpointermove = (event) => {
    const area = svg.getBoundingClientRect();
    look(Math.floor((event.clientX - area.left) / area.width * total));
  };
  svg.onpointerleave = box.onblur = () => {
    hold = null;
    wake();
  };
  box.onkeydown = (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    look((hold && hold.clip === clip ? hold.frame : 0) + way);
  };
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", "Surprise in bits a token by frame; arrow keys go along it");
  box.append(svg, make("figcaption", {}, words, whole));
  tell(0);
  box.tell = tell;
  return box;
}
