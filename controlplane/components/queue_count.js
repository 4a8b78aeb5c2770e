// How many jobs wait or run, beside the link to the jobs.

import { unfinished } from "diffbox/live.js";

export default {
  template: `<span class="count num" v-show="count"><span class="sr">, unfinished: </span>{{ count }}</span>`,
  computed: { count: () => unfinished.value.length },
};
