// Two pictures on each other; a line between them moves with pointer and arrow keys.

export const Compare = {
  props: { before: String, after: String, label: String, width: Number, height: Number },
  emits: ["gone"],
  template: `
  <div class="compare" :style="{ '--at': at + '%' }">
    <img :src="after" :alt="label" :width="width" :height="height" @error="$emit('gone')">
    <img class="before" :src="before" alt="The same before">
    <i class="seam" aria-hidden="true"></i>
    <span class="side" aria-hidden="true">Before</span><span class="side after" aria-hidden="true">After</span>
    <input type="range" min="0" max="100" v-model.number="at" aria-label="Before and after" :aria-valuetext="at + '% before'">
  </div>`,
  data: () => ({ at: 50 }),
};
