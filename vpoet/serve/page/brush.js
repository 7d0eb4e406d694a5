"use strict";
// A mask brush over a picture or a moving clip: white where it is to be painted anew.

class Brush {
  constructor(canvas, image) {
    this.canvas = canvas;
    this.image = image;
    this.radius = 12; // in % of the shorter side
    this.any = false;
    this.id = null; // of the upload that it is, as long as nothing is changed
    let from = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height];
    };
    canvas.onpointerdown = (event) => {
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      from = at(event);
      this.line(from, from);
    };
    canvas.onpointermove = (event) => {
      if (!from) return;
      const to = at(event);
      this.line(from, to);
      from = to;
    };
    canvas.onpointerup = canvas.onpointercancel = () => { from = null; };
  }

  // The picture that is painted on: its address, and how many pixels it really has.
  begin(source, width, height) {
    this.image.src = source;
    if (this.canvas.width === width && this.canvas.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.any = false;
  }

  line(from, to) {
    const pen = this.canvas.getContext("2d");
    pen.strokeStyle = "#fff";
    pen.lineCap = "round";
    pen.lineWidth = Math.max(1, this.radius / 100 * Math.min(this.canvas.width, this.canvas.height) * 2);
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
    this.any = true;
    this.id = null;
  }

  box(x, y, width, height) { // in %
    const pen = this.canvas.getContext("2d"), w = this.canvas.width / 100, h = this.canvas.height / 100;
    pen.fillStyle = "#fff";
    pen.fillRect(Math.round(x * w), Math.round(y * h), Math.round(width * w), Math.round(height * h));
    this.any = true;
    this.id = null;
  }

  clear() {
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.any = false;
  }

  // A .png of black and white.
  async file() {
    const flat = document.createElement("canvas");
    flat.width = this.canvas.width;
    flat.height = this.canvas.height;
    const pen = flat.getContext("2d");
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, flat.width, flat.height);
    pen.drawImage(this.canvas, 0, 0);
    return new Promise((done) => flat.toBlob(done, "image/png"));
  }
}
