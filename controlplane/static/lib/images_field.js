// Pictures in their order: dropped, pasted or chosen, several at once; each is a drop zone.

import { DropZone } from "./drop_zone.js";
import { Icon } from "./icon.js";

let count = 0;
const slotOf = (ref, file = null) => ({ id: ++count, ref, file }); // file: one that is being sent

export const ImagesField = {
  inheritAttrs: false, // it takes of a field what it needs
  components: { "drop-zone": DropZone, "dbx-icon": Icon },
  props: {
    field: Object,
    value: Array,
    files: Object, // what is known about each file reference
    labelled: String,
    described: String,
    wrong: Boolean,
    takesPaste: Boolean,
  },
  emits: ["set", "file"],
  template: `
  <div class="pictures" role="group" :aria-labelledby="labelled">
    <ol v-if="slots.length">
      <li v-for="(slot, i) in slots" :key="slot.id" class="picture">
        <span :id="labelled + '-' + slot.id" class="num">Picture {{ i + 1 }}</span>
        <drop-zone kind="image" :value="slot.ref" :file="files[slot.ref]" :given="slot.file" :labelled="labelled + '-' + slot.id" :described="described"
                   :wrong="wrong" @chosen="(ref, file) => chosen(slot, ref, file)" @removed="drop(slot)" @failed="failed(slot, $event)" />
        <div class="turns">
          <button type="button" class="tool" :disabled="i === 0" :aria-label="'Move picture ' + (i + 1) + ' up'" title="Move up" @click="move(i, -1)"><dbx-icon name="arrow-up" /></button>
          <button type="button" class="tool" :disabled="i === slots.length - 1" :aria-label="'Move picture ' + (i + 1) + ' down'" title="Move down" @click="move(i, 1)"><dbx-icon name="arrow-down" /></button>
        </div>
      </li>
    </ol>
    <drop-zone v-if="room" kind="image" multiple :more="slots.length > 0" :labelled="labelled" :described="described" :help="field.help" :wrong="wrong && !slots.length"
               :takes-paste="takesPaste" @files="add" />
    <p v-if="problem" class="problem" role="alert"><dbx-icon name="circle-alert" /><span>{{ problem }}</span></p>
  </div>`,
  data() {
    return { slots: (this.value ?? []).map((ref) => slotOf(ref)), problem: "" };
  },
  computed: {
    refs() {
      return this.slots.map((slot) => slot.ref).filter(Boolean);
    },
    most() {
      return this.field.max_items ?? Infinity;
    },
    room() {
      return this.slots.length < this.most;
    },
  },
  watch: {
    value(value) {
      if (JSON.stringify(value ?? []) !== JSON.stringify(this.refs)) this.slots = (value ?? []).map((ref) => slotOf(ref));
    },
  },
  methods: {
    tell() {
      this.$emit("set", this.refs.length ? this.refs : undefined);
    },
    add(files) {
      const fit = files.slice(0, this.most - this.slots.length);
      this.problem = fit.length < files.length ? `At most ${this.most} pictures: ${files.length - fit.length} were left out.` : "";
      this.slots.push(...fit.map((file) => slotOf(null, file)));
    },
    chosen(slot, ref, file) {
      this.$emit("file", ref, file);
      Object.assign(slot, { ref, file: null });
      this.tell();
    },
    failed(slot, message) {
      if (slot.ref) return; // the picture that was there before stays, and its zone tells
      this.problem = message;
      this.drop(slot);
    },
    drop(slot) {
      this.slots = this.slots.filter((other) => other.id !== slot.id);
      this.tell();
    },
    move(i, by) {
      const slot = this.slots[i];
      this.slots = this.slots.with(i, this.slots[i + by]).with(i + by, slot);
      this.tell();
    },
  },
};
