// A list of texts to write: add, remove, double, move, and several lines pasted at once.
//
// Enter begins the next text, Shift+Enter a line, Alt+arrows move, Backspace removes an empty one.

import { Icon } from "./icon.js";

let count = 0;
export const newRow = (text = "") => ({ id: ++count, text });

export const TextRows = {
  components: { "dbx-icon": Icon },
  props: {
    rows: Array, // [{id, text}]
    first: { type: Number, default: 0 }, // counted from 0: what the first row is called
    noun: String, // what a row is called
    least: { type: Number, default: 0 }, // so many rows stay
    most: { type: Number, default: Infinity },
    problems: { type: Object, default: () => ({}) }, // by place in rows
    placeholder: { type: String, default: "" },
    described: String, // id of a text about all of them
    disabled: Boolean,
  },
  emits: ["change"],
  template: `
  <div class="texts">
    <ol v-if="rows.length">
      <li v-for="(row, i) in rows" :key="row.id" class="text-row" :data-row="row.id">
        <div class="text-head">
          <span class="num">{{ name(i) }}</span><span class="grow"></span>
          <button type="button" class="tool" :disabled="disabled || i === 0" :aria-label="'Move ' + called(i) + ' up'" title="Move up (Alt+↑)" @click="move(i, -1)"><dbx-icon name="arrow-up" /></button>
          <button type="button" class="tool" :disabled="disabled || i === rows.length - 1" :aria-label="'Move ' + called(i) + ' down'" title="Move down (Alt+↓)" @click="move(i, 1)"><dbx-icon name="arrow-down" /></button>
          <button type="button" class="tool" :disabled="disabled || full" :aria-label="'Double ' + called(i)" title="Double" @click="insert(i + 1, row.text)"><dbx-icon name="copy" /></button>
          <button type="button" class="tool" :disabled="disabled || rows.length <= least" :aria-label="'Remove ' + called(i)" title="Remove" @click="remove(i)"><dbx-icon name="x" /></button>
        </div>
        <textarea rows="2" :value="row.text" :aria-label="name(i)" :placeholder="i ? '' : placeholder" :aria-describedby="described" :disabled="disabled"
                  :aria-invalid="problems[i] ? 'true' : undefined" @input="write(i, $event.target.value)" @keydown="key(i, $event)" @paste="pasted(row, $event)"></textarea>
        <p v-if="problems[i]" class="problem" role="alert"><dbx-icon name="circle-alert" /><span>{{ problems[i] }}</span></p>
        <p v-if="offer?.id === row.id" class="offer" role="status">{{ offer.lines }} lines were pasted.
          <button type="button" class="chip" @click="split(i)">One {{ noun.toLowerCase() }} a line</button>
          <button type="button" class="link" @click="offer = null">Leave them</button></p>
      </li>
    </ol>
    <button type="button" class="btn add" :disabled="disabled || full" @click="insert(rows.length)"><dbx-icon name="plus" />Add a {{ noun.toLowerCase() }}</button>
  </div>`,
  data: () => ({ offer: null }), // {id, lines} after several lines were pasted
  computed: {
    full() {
      return this.rows.length >= this.most;
    },
  },
  methods: {
    name(i) {
      return `${this.noun} ${this.first + i + 1}`;
    },
    called(i) {
      return this.name(i).toLowerCase();
    },
    change(rows, focus) {
      this.$emit("change", rows);
      if (focus) this.$nextTick(() => this.$el.querySelector(`[data-row="${focus.id}"] textarea`)?.focus());
    },
    write(i, text) {
      this.change(this.rows.with(i, { ...this.rows[i], text }));
    },
    insert(i, text = "") {
      const row = newRow(text);
      this.change(this.rows.toSpliced(i, 0, row), row);
    },
    remove(i) {
      this.change(this.rows.toSpliced(i, 1), this.rows[i - 1] ?? this.rows[i + 1]);
    },
    move(i, by) {
      const row = this.rows[i];
      if (this.rows[i + by]) this.change(this.rows.with(i, this.rows[i + by]).with(i + by, row), row);
    },
    key(i, event) {
      const { key, altKey, shiftKey, ctrlKey, metaKey, isComposing, target } = event;
      if (isComposing || ctrlKey || metaKey) return;
      if (key === "Enter" && !shiftKey && !altKey && !this.full) this.insert(i + 1);
      else if (altKey && (key === "ArrowUp" || key === "ArrowDown")) this.move(i, key === "ArrowUp" ? -1 : 1);
      else if (key === "Backspace" && !target.value && this.rows.length > this.least) this.remove(i);
      else return;
      event.preventDefault();
    },
    pasted(row, event) {
      const lines = linesOf(event.clipboardData?.getData("text") ?? "").length;
      this.offer = lines > 1 ? { id: row.id, lines } : null;
    },
    split(i) {
      const rows = linesOf(this.rows[i].text).map(newRow);
      this.offer = null;
      this.change(this.rows.toSpliced(i, 1, ...rows).slice(0, this.most), rows.at(-1));
    },
  },
};

const linesOf = (text) => text.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
