"use strict";
// What a clip follows beside words and pictures: controls, and how much moves; of models that have learnt it.

const PICTURES = { // what controls are pictures of
  edges: "outlines", depth: "how far away things are", segmentation: "which thing is where",
  flow: "what moves where to", pose: "how a figure stands", grey: "how bright it is", sketch: "a drawing in lines",
};

class Controls { // a row of each kind that the model reads: nothing, made of the clip that is given, or a file
  constructor(box, send) {
    this.box = box;
    this.send = send; // (kind, file) -> what the server says of it
    this.rows = new Map();
  }

  show(model, made) { // made: whether controls can be made of the clip that is given
    const kept = this.rows;
    this.rows = new Map(model.controls.map((kind) => [kind, kept.get(kind) || this.row(kind)]));
    for (const [kind, row] of this.rows) {
      const auto = row.from.querySelector("[value=auto]"), can = made && model.makes.includes(kind);
      auto.hidden = auto.disabled = !can;
      if (!can && row.from.value === "auto") row.from.value = "";
      row.look();
    }
    this.box.replaceChildren(this.box.querySelector("legend"), ...[...this.rows.values()].map((row) => row.all));
    this.box.hidden = !this.rows.size;
  }

  row(kind) {
    const id = (part) => `control-${kind}-${part}`;
    const from = make("select", { id: id("from") }, new Option("nothing", ""), new Option("made of the clip", "auto"),
      new Option("a file", "file"));
    const file = make("input", { id: id("file"), type: "file", accept: "image/*,video/*", ariaLabel: `${kind}: its file` });
    const preview = make("img", { className: "preview", alt: "" });
    const told = make("output"), strength = make("input", { id: id("strength"), type: "range", min: 0, max: 1,
      step: 0.05, value: 1 });
    const how = make("label", {}, "How closely: ", told, strength);
    const all = make("div", { className: "control" }, make("div", { className: "row" },
      make("label", { htmlFor: from.id, textContent: kind, title: PICTURES[kind] || "" }), from), file, preview, how);
    const row = { all, from, strength, id: null };
    row.look = () => {
      file.hidden = from.value !== "file";
      preview.hidden = file.hidden;
      how.hidden = !from.value;
      told.textContent = strength.value;
    };
    row.take = (about) => {
      row.id = about ? about.id : null;
      preview.src = about ? `/api/uploads/${about.id}/preview` : "";
      preview.alt = about ? `what was sent as ${kind}` : "";
    };
    row.wants = (value, much) => {
      from.value = value;
      strength.value = much;
      row.look();
    };
    from.onchange = strength.oninput = row.look;
    file.onchange = async () => { if (file.files.length) row.take(await this.send(kind, file.files[0])); };
    return row;
  }

  get makes() { return [...this.rows.values()].some((row) => row.from.value === "auto"); }

  asked() { // as the command line writes them
    return [...this.rows].filter(([, row]) => row.from.value).map(([kind, row]) => {
      if (row.from.value === "file" && !row.id) throw new Error(`Choose the file of ${kind} first.`);
      return `${kind}=${row.from.value === "auto" ? "auto" : row.id}:${row.strength.value}`;
    });
  }

  async settings(told, lookUp) { // those that were asked for, or of a record; how many files are here no more
    let missing = 0;
    for (const row of this.rows.values()) { row.wants("", 1); row.take(null); }
    for (const each of readControls(told)) {
      const row = this.rows.get(each.kind);
      if (!row) continue;
      row.wants(each.clip === "auto" ? "auto" : "file", each.strength);
      if (each.clip === "auto") continue;
      const about = typeof each.clip === "string" && await lookUp(each.clip);
      row.take(about);
      missing += !about;
    }
    return missing;
  }
}

const readControls = (told) => (told || []).map((each) => { // "edges=ID:0.7", or {kind, clip, strength}
  if (typeof each !== "string") return each;
  const [, kind, clip, strength] = /^\s*(\w+)\s*=\s*(\w+)\s*(?::\s*([\d.]+)\s*)?$/.exec(each) || [];
  return { kind, clip, strength: strength === undefined ? 1 : strength };
});

class Conditions { // a slider of each that the model has learnt; at its left end nothing is said
  constructor(box) {
    this.box = box;
    this.rows = new Map();
  }

  show(model) {
    const kept = this.asked();
    this.rows = new Map(Object.entries(model.conditions).map(([name, about]) => [name, this.row(name, about)]));
    this.box.replaceChildren(...[...this.rows.values()].map((row) => row.all));
    this.box.hidden = !this.rows.size;
    this.settings(kept);
  }

  row(name, { meaning, choices }) {
    const told = make("output"), slider = make("input", { id: name, type: "range", min: 0, max: choices.length,
      value: 0 });
    const row = { all: make("div", {}, make("label", { htmlFor: name, title: meaning }, `${name}: `, told), slider) };
    row.wants = (value) => { // of no range that was met: the nearest one
      const off = ({ low, high }) => Math.max(low === null ? 0 : low - value, high === null ? 0 : value - high, 0);
      const within = choices.findIndex(({ low, high }) => (low === null || low <= value) && (high === null || value < high));
      const least = Math.min(...choices.map(off));
      slider.value = 1 + (within < 0 ? choices.findIndex((each) => off(each) === least) : within);
      row.value = value;
      row.look();
    };
    row.look = () => { told.textContent = row.value === null ? "nothing is said" : choices[slider.value - 1].words; };
    row.none = () => {
      slider.value = 0;
      row.value = null;
      row.look();
    };
    slider.oninput = () => {
      row.value = Number(slider.value) ? choices[slider.value - 1].value : null;
      row.look();
    };
    row.none();
    return row;
  }

  asked() {
    return Object.fromEntries([...this.rows].filter(([, row]) => row.value !== null).map(([name, row]) => [name, row.value]));
  }

  settings(told) {
    for (const [name, row] of this.rows) if (typeof told[name] === "number") row.wants(told[name]); else row.none();
  }
}
