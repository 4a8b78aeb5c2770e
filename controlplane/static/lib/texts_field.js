// A list of texts, one a clip; where there are more clips, the last one goes on.

import { span } from "./clips.js";
import { newRow, TextRows } from "./text_rows.js";

const BLANK = /number (\d+) is blank/;
const NUMBER = /number (\d+)/;

export const TextsField = {
  inheritAttrs: false, // it takes of a field what it needs
  components: { "text-rows": TextRows },
  props: {
    field: Object,
    value: Array, // null when nothing is there
    message: String, // the server's problem
    asked: Boolean, // blank texts are told from now on
    first: Number, // the clip that the first text is for
    count: Number, // how many are used: null without end, undefined when there is no such number
    labelled: String,
    described: String,
    blocked: Boolean,
  },
  emits: ["set", "count"],
  template: `
  <div role="group" :aria-labelledby="labelled">
    <text-rows :rows="rows" :first="first" :noun="noun" :least="1" :most="field.max_items ?? Infinity" :problems="problems" :described="described"
               placeholder="What happens?" :disabled="blocked" @change="change" />
    <p v-if="tail" class="tail" role="status">{{ tail }}<button v-if="over" type="button" class="chip" @click="$emit('count', rows.length)">Make {{ rows.length }}</button></p>
  </div>`,
  data() {
    return { rows: rowsOf(this.value) };
  },
  watch: {
    value(value) {
      if (JSON.stringify(value ?? []) !== JSON.stringify(valueOf(this.rows) ?? [])) this.rows = rowsOf(value);
    },
  },
  computed: {
    noun() {
      return this.field.counted_by ? "Clip" : "Text";
    },
    over() {
      return this.count != null && this.rows.length > this.count;
    },
    tail() {
      const next = this.first + this.rows.length;
      if (this.over) return `${this.rows.length} prompts are more than ${this.count} clips.`;
      if (this.count === null) return `From clip ${next + 1} on, the last prompt goes on.`;
      if (!this.count || this.count === this.rows.length) return "";
      const rest = this.count - this.rows.length;
      return `${span(next, next + rest - 1)} ${rest > 1 ? "go" : "goes"} on with the last prompt.`;
    },
    problems() {
      if (!this.message || (BLANK.test(this.message) && !this.asked)) return {};
      const [, number] = this.message.match(NUMBER) ?? [];
      if (!number) return {};
      return { [number - 1]: BLANK.test(this.message) ? "Say what happens in this clip, or remove it." : this.message };
    },
  },
  methods: {
    change(rows) {
      this.rows = rows;
      this.$emit("set", valueOf(rows));
    },
  },
};

const rowsOf = (value) => (value?.length ? value : [""]).map((text) => newRow(text));

// One empty text is nothing at all, as it is in every other field.
const valueOf = (rows) => (rows.length === 1 && !rows[0].text ? undefined : rows.map((row) => row.text));

// Whether the problem is told beside one of the texts, or not yet.
export const toldInside = (message) => NUMBER.test(message);
