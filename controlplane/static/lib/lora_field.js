// A list of objects with texts and numbers, a row each: a file by name and its strength. What an
// object holds comes with the field (`parts`): the nth number belongs to the nth text.

import { Icon } from "./icon.js";

const STEP = 0.05;
const USUAL = [0, 1.5]; // what a strength slider spans; the box beside it takes all that is allowed

let count = 0;

export const LoraField = {
  inheritAttrs: false, // it takes of a field what it needs
  components: { "dbx-icon": Icon },
  props: { field: Object, value: Array, default: Array, message: String, labelled: String, described: String, blocked: Boolean },
  emits: ["set"],
  template: `
  <div class="loras" role="group" :aria-labelledby="labelled">
    <datalist :id="list"><option v-for="choice in field.choices" :key="choice.value" :value="choice.value">{{ choice.label }}</option></datalist>
    <ol v-if="rows.length">
      <li v-for="(row, i) in rows" :key="row.id" class="lora" :class="{ wrong: i === wrong }">
        <div v-for="pair in pairs" :key="pair.text.name" class="lora-part">
          <input type="text" :list="list" :value="row.item[pair.text.name] ?? ''" :disabled="blocked" spellcheck="false" autocomplete="off"
                 :placeholder="pair.text.title" :aria-label="label(i, pair.text)" :aria-describedby="described" :aria-invalid="i === wrong ? 'true' : undefined"
                 @input="write(row, pair.text.name, $event.target.value)" @change="spread(row, pair.text)">
          <template v-if="pair.number">
            <input type="range" :min="low(pair)" :max="high(pair)" :step="step" :value="strength(row, pair)" :disabled="blocked" :style="{ '--at': at(row, pair) }"
                   :aria-label="label(i, pair.number)" @input="number(row, pair, $event.target.value)">
            <input type="number" inputmode="decimal" :min="pair.number.minimum" :max="pair.number.maximum" :step="step" :value="strength(row, pair)"
                   :disabled="blocked" :aria-label="label(i, pair.number) + ', exact'" @input="number(row, pair, $event.target.value)">
          </template>
        </div>
        <button type="button" class="tool" :disabled="blocked" :aria-label="'Remove LoRA ' + (i + 1)" title="Remove" @click="remove(row)"><dbx-icon name="x" /></button>
      </li>
    </ol>
    <button type="button" class="btn add" :disabled="blocked || rows.length >= (field.max_items ?? Infinity)" @click="add"><dbx-icon name="plus" />Add a LoRA</button>
  </div>`,
  data() {
    return { rows: rowsOf(this.value), step: STEP };
  },
  watch: {
    value(value) {
      if (JSON.stringify(value ?? []) !== JSON.stringify(this.items)) this.rows = rowsOf(value);
    },
  },
  computed: {
    list() {
      return this.labelled + "-known";
    },
    pairs() {
      const of = (type) => this.field.parts.filter((part) => part.type === type);
      const numbers = of("number");
      return of("string").map((text, i) => ({ text, number: numbers[i] }));
    },
    // A row without a file is only a place to write one.
    items() {
      return this.rows.map((row) => row.item).filter((item) => this.pairs.some(({ text }) => item[text.name]));
    },
    wrong() {
      const [, at] = this.message.match(/^\w+\[(\d+)\]/) ?? [];
      return at === undefined ? -1 : this.rows.findIndex((row) => row.item === this.items[at]);
    },
  },
  methods: {
    label: (i, part) => `LoRA ${i + 1}, ${part.title.toLowerCase()}`,
    low: ({ number }) => Math.max(number.minimum ?? USUAL[0], USUAL[0]),
    high: ({ number }) => Math.min(number.maximum ?? USUAL[1], USUAL[1]),
    strength: (row, { number }) => row.item[number.name] ?? number.default,
    at(row, pair) {
      const share = (this.strength(row, pair) - this.low(pair)) / (this.high(pair) - this.low(pair));
      return `${Math.min(Math.max(share, 0), 1) * 100}%`;
    },
    tell() {
      const none = !this.items.length && !this.default?.length;
      this.$emit("set", none ? undefined : this.items);
    },
    write(row, name, text) {
      const { [name]: _, ...rest } = row.item;
      row.item = text.trim() ? { ...rest, [name]: text.trim() } : rest;
      this.tell();
    },
    // One name stands for a known pair: it is the file of each expert.
    spread(row, { name }) {
      const known = this.field.choices.some((choice) => choice.value === row.item[name]);
      const others = this.pairs.filter(({ text }) => text.name !== name && !row.item[text.name]);
      if (!known || !others.length) return;
      row.item = { ...row.item, ...Object.fromEntries(others.map(({ text }) => [text.name, row.item[name]])) };
      this.tell();
    },
    number(row, { number }, text) {
      if (text.trim() === "" || !Number.isFinite(Number(text))) return;
      row.item = { ...row.item, [number.name]: Number(text) };
      this.tell();
    },
    add() {
      this.rows.push(rowOf({}));
      this.$nextTick(() => this.$el.querySelector("li:last-child input")?.focus());
    },
    remove(row) {
      this.rows = this.rows.filter((other) => other.id !== row.id);
      this.tell();
    },
  },
};

const rowOf = (item) => ({ id: ++count, item });
const rowsOf = (value) => (value ?? []).map((item) => rowOf({ ...item }));
