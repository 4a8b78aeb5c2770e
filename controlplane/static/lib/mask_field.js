// A mask: a picture that is white where something is made anew, shown over the picture it is for.

import { url } from "./api.js";
import { DropZone } from "./drop_zone.js";

const UPLOAD = "upload:";
const source = (ref) => (ref?.startsWith(UPLOAD) ? url("/api/uploads/" + ref.slice(UPLOAD.length)) : "");

export const MaskField = {
  inheritAttrs: false, // it takes of a field what it needs
  components: { "drop-zone": DropZone },
  props: { field: Object, value: String, files: Object, picture: String, labelled: String, described: String, wrong: Boolean, takesPaste: Boolean },
  emits: ["set", "file"],
  template: `
  <div class="mask">
    <drop-zone kind="image" :value="value" :file="files[value]" :labelled="labelled" :described="described" :help="field.help" :wrong="wrong"
               :takes-paste="takesPaste" @chosen="chosen" @removed="$emit('set', undefined)" />
    <figure v-if="over">
      <div class="mask-over"><img :src="under" alt="The picture, with what is made anew tinted"><i :style="{ maskImage: over }"></i></div>
      <figcaption class="help">Tinted: made anew. The rest stays.</figcaption>
    </figure>
  </div>`,
  computed: {
    under() {
      return source(this.picture);
    },
    over() {
      const mask = source(this.value);
      return mask && this.under ? `url("${mask}")` : "";
    },
  },
  methods: {
    chosen(ref, file) {
      this.$emit("file", ref, file);
      this.$emit("set", ref);
    },
  },
};
