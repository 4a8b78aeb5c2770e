// One parameter of the form: label, unit, help, the widget for its type, and its problem.

import { DropZone } from "./drop_zone.js";
import { Icon } from "./icon.js";
import { ImagesField } from "./images_field.js";
import { LoraField } from "./lora_field.js";
import { MaskField } from "./mask_field.js";
import { TextsField, toldInside } from "./texts_field.js";
import { problemWords } from "./words.js";

const SEED_DICE = 2 ** 32;
const LARGE = { texts: TextsField, images: ImagesField, mask: MaskField, lora: LoraField }; // widgets with a file of their own
const FILES = ["image", "video", "images", "mask"];
const RATIO = /^(\d+) × (\d+)/; // a label such as "832 × 480 landscape" gets a little picture of its shape

export const Field = {
  components: { "dbx-icon": Icon, "drop-zone": DropZone },
  props: {
    field: Object,
    value: null, // what was touched, or undefined
    view: Object, // {shown, default, blocked}
    message: { type: String, default: "" }, // the server's problem
    asked: Boolean, // Generate was pressed: what is left empty is told
    needed: Boolean, // required, empty, and asked
    files: Object, // what is known about each file reference
    takesPaste: Boolean,
    around: Object, // of the form: {picture, first, count}
  },
  emits: ["set", "file", "count"],
  template: `
  <div class="field" :class="{ half }" :data-field="field.name">
    <div class="label">
      <label v-if="single" :id="id" :for="id + '-in'">{{ field.title }}</label>
      <span v-else :id="id">{{ field.title }}</span>
      <span v-if="field.required" class="dim" aria-hidden="true">required</span>
      <button v-if="changed" type="button" class="reset" :aria-label="'Reset ' + field.title" :title="'Back to ' + shownDefault" @click="set(undefined)">
        <dbx-icon name="rotate-ccw" />
      </button>
      <span class="grow"></span>
      <span v-if="field.unit && field.widget !== 'slider'" class="dim unit">{{ field.unit }}</span>
      <button v-if="field.widget === 'switch'" :id="id + '-in'" type="button" role="switch" class="switch" :aria-checked="!!now"
              :aria-labelledby="id" :aria-describedby="id + '-help'" :disabled="blocked" @click="set(!now)"><i></i></button>
    </div>

    <textarea v-if="field.widget === 'textarea'" :id="id + '-in'" v-bind="common" :class="{ tall: field.required }" :placeholder="field.help" :rows="field.required ? 4 : 2" :maxlength="field.max_length"
              :value="now ?? ''" @input="set($event.target.value || undefined)"></textarea>

    <div v-else-if="field.widget === 'select'" class="pick">
      <i v-if="ratio" class="ratio" :style="ratio" aria-hidden="true"></i>
      <select :id="id + '-in'" v-bind="common" :class="{ shifted: ratio }" :value="now" @change="set($event.target.value)">
        <option v-for="choice in field.choices" :key="choice.value" :value="choice.value">{{ choice.label }}</option>
      </select>
      <dbx-icon name="chevron-down" />
    </div>

    <div v-else-if="field.widget === 'choice'" class="segments" role="radiogroup" :aria-labelledby="id" :aria-describedby="id + '-help'">
      <label v-for="choice in field.choices" :key="choice.value">
        <input type="radio" :name="id" :value="choice.value" :checked="now === choice.value" :disabled="blocked" @change="set(choice.value)">
        <span>{{ choice.label }}</span>
      </label>
    </div>

    <div v-else-if="field.widget === 'slider'" class="slide">
      <input type="range" :min="field.minimum" :max="field.maximum" :step="field.step" :value="now ?? field.minimum" :disabled="blocked" :style="{ '--at': at }"
             :aria-label="field.title" :aria-valuetext="now == null ? 'not set' : now + ' ' + field.unit" @input="number($event.target.value)">
      <span class="box"><input :id="id + '-in'" v-bind="common" type="number" inputmode="decimal" :min="field.minimum" :max="field.maximum"
             :step="field.step" :value="now" @input="number($event.target.value)"><em v-if="field.unit">{{ field.unit }}</em></span>
    </div>

    <div v-else-if="field.widget === 'seed'" class="seed">
      <input :id="id + '-in'" v-bind="common" type="number" inputmode="numeric" min="0" :max="field.maximum" step="1" placeholder="Random every time"
             :value="value ?? ''" @input="number($event.target.value)">
      <button type="button" class="tool" aria-label="Roll a new seed" title="Roll a new seed" @click="set(roll())"><dbx-icon name="dice-5" /></button>
      <button type="button" class="tool" :aria-pressed="value != null" :aria-label="value != null ? 'Seed is kept' : 'Seed is random'"
              :title="value != null ? 'Kept: press for a random one each time' : 'Random: press to keep one'"
              @click="set(value != null ? undefined : roll())"><dbx-icon :name="value != null ? 'lock' : 'lock-open'" /></button>
    </div>

    <div v-else-if="field.widget === 'pair'" class="pair" role="group" :aria-labelledby="id" :aria-describedby="id + '-help'">
      <input v-for="side in [0, 1]" :key="side" type="number" inputmode="numeric" :step="field.step" :value="now?.[side]" :disabled="blocked"
             :aria-label="field.title + (side ? ', second' : ', first')" :aria-invalid="!!problem" @input="pair(side, $event.target.value)">
    </div>

    <component v-else-if="large" :is="large" v-show="!blocked" :field="field" :value="now" :default="view.default" :message="message" :asked="asked"
               :files="files" :picture="around.picture" :first="around.first" :count="around.count" :labelled="id" :described="id + '-help'" :blocked="blocked"
               :wrong="!!problem" :takes-paste="takesPaste" @set="set" @file="(ref, file) => $emit('file', ref, file)" @count="$emit('count', $event)" />

    <drop-zone v-else-if="field.widget === 'image' || field.widget === 'video'" v-show="!blocked" :kind="field.widget" :value="value" :file="files[value]"
               :labelled="id" :described="id + '-help'" :help="field.help" :wrong="!!problem" :takes-paste="takesPaste" @chosen="chosen" @removed="set(undefined)" />

    <input v-else-if="field.widget !== 'switch'" :id="id + '-in'" v-bind="common" :type="numeric ? 'number' : 'text'" :min="field.minimum"
           :max="field.maximum" :step="numeric ? field.step : undefined" :maxlength="field.max_length" :value="now ?? ''"
           @input="numeric ? number($event.target.value) : set($event.target.value || undefined)">

    <p v-if="problem" :id="id + '-problem'" class="problem" role="alert">
      <dbx-icon name="circle-alert" /><span>{{ problem.text }}
        <template v-if="problem.nearest.length">Use <button v-for="near in problem.nearest" :key="near" type="button" class="chip" @click="set(near)">{{ near }}</button></template>
      </span>
    </p>
    <p v-show="!problem || view.blocked" :id="id + '-help'" class="help" :class="{ sr: quiet && !view.blocked }">{{ view.blocked || field.help }}</p>
  </div>`,
  computed: {
    id() {
      return "p-" + this.field.name;
    },
    single() {
      return !this.large && !["choice", "pair", "image", "video", "switch"].includes(this.field.widget);
    },
    large() {
      return LARGE[this.field.widget];
    },
    half() {
      return ["number", "pair"].includes(this.field.widget);
    },
    quiet() {
      return ["textarea", ...FILES].includes(this.field.widget); // shown inside the widget
    },
    numeric() {
      return this.field.type === "integer" || this.field.type === "number";
    },
    blocked() {
      return !!this.view.blocked;
    },
    now() {
      return this.value === undefined || this.value === null ? this.view.default : this.value;
    },
    changed() {
      const touched = this.value !== undefined && this.value !== null;
      const quiet = ["textarea", "text", "texts", "seed", ...FILES].includes(this.field.widget);
      return touched && !quiet && JSON.stringify(this.value) !== JSON.stringify(this.view.default);
    },
    shownDefault() {
      const value = this.view.default;
      if (Array.isArray(value) && this.large) return value.length ? "what the preset has" : "none";
      return this.field.choices.find((choice) => choice.value === value)?.label ?? String(value);
    },
    common() {
      return {
        disabled: this.blocked,
        "aria-describedby": `${this.id}-help${this.problem ? ` ${this.id}-problem` : ""}`,
        "aria-invalid": this.problem ? "true" : undefined,
        "aria-required": this.field.required || undefined,
      };
    },
    problem() {
      if (this.message && !(this.field.widget === "texts" && toldInside(this.message))) return problemWords(this.field.name, this.message);
      const { max_length } = this.field;
      // The browser cuts what is pasted: that must not happen in silence.
      if (max_length && !this.large && String(this.now ?? "").length >= max_length)
        return { text: `Full: at most ${max_length} characters fit, and what came after was left out.`, nearest: [] };
      if (!this.needed) return null;
      return { text: FILES.includes(this.field.widget) ? "Choose a file first." : "Fill this in first.", nearest: [] };
    },
    at() {
      const { minimum, maximum } = this.field;
      if (this.now == null) return "0%";
      const share = (Math.min(Math.max(Number(this.now), minimum), maximum) - minimum) / (maximum - minimum);
      return `${share * 100}%`;
    },
    ratio() {
      const label = this.field.choices.find((choice) => choice.value === this.now)?.label ?? "";
      const [, width, height] = label.match(RATIO) ?? [];
      return width ? { aspectRatio: `${width} / ${height}`, [Number(width) >= Number(height) ? "width" : "height"]: "16px" } : null;
    },
  },
  methods: {
    set(value) {
      this.$emit("set", value);
    },
    number(text) {
      const value = Number(text);
      this.set(text.trim() === "" || !Number.isFinite(value) ? undefined : value);
    },
    pair(side, text) {
      const both = [...(this.now ?? [0, 0])];
      both[side] = Number(text);
      this.set(both);
    },
    roll: () => Math.floor(Math.random() * SEED_DICE),
    chosen(reference, file) {
      this.$emit("file", reference, file);
      this.set(reference);
    },
  },
};
