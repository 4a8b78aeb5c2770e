// The shell's live corner: connection, worker, theme, sign out; and the region that reads changes aloud.

import { Icon } from "diffbox/icon.js";
import { live, start } from "diffbox/live.js";

const THEME_KEY = "diffbox.theme";
const THEMES = { system: ["monitor", "System theme"], dark: ["moon", "Dark theme"], light: ["sun", "Light theme"] };

export default {
  components: { "dbx-icon": Icon },
  props: { workflows: Object, signOut: Boolean },
  template: `
  <div class="corner">
    <p class="sr" role="status" aria-live="polite">{{ announcement }}</p>
    <div class="banner" role="status" v-if="lost"><dbx-icon name="cloud-off" />No connection. Trying again…</div>
    <div class="worker" :title="worker.more">
      <i class="dot" :class="worker.state"></i>
      <span class="worker-words"><strong>{{ worker.word }}</strong><span class="dim">{{ worker.device }}</span></span>
    </div>
    <button type="button" class="tool" :aria-label="themeWord + ', change'" :title="themeWord" @click="turn"><dbx-icon :name="themeIcon" /></button>
    <form v-if="signOut" method="post" :action="out"><button type="submit" class="tool" aria-label="Sign out" title="Sign out"><dbx-icon name="log-out" /></button></form>
  </div>`,
  data: () => ({ theme: localStorage.getItem(THEME_KEY) ?? "system" }),
  computed: {
    announcement: () => live.announcement,
    lost: () => live.lost,
    out: () => (window.path_prefix || "") + "/logout",
    themeIcon() {
      return THEMES[this.theme][0];
    },
    themeWord() {
      return THEMES[this.theme][1];
    },
    worker() {
      const { health, connected } = live;
      if (!connected && live.lost) return { state: "failed", word: "Offline", device: "", more: "The page has no connection to diffbox" };
      if (!health) return { state: "queued", word: "Connecting", device: "", more: "" };
      const workers = health.workers ?? [];
      if (!workers.length) return { state: "queued", word: "No worker", device: "Jobs will wait", more: "" };
      const busy = workers.filter((worker) => worker.state === "busy").length;
      const states = new Set(workers.map((worker) => worker.state));
      const sick = states.size === 1 && states.has("unhealthy");
      const starting = !busy && states.size === 1 && states.has("starting");
      const word = sick ? "Worker unhealthy" : starting ? "Worker starting" : busy ? "Worker busy" : "Worker ready";
      const many = workers.length > 1 ? `${busy} of ${workers.length} busy` : "";
      return {
        state: sick ? "failed" : starting ? "queued" : busy ? "running" : "completed",
        word: many ? `${workers.length} workers` : word,
        device: many || this.device(workers[0].device),
        more: workers.map((worker) => `${worker.id}: ${worker.state}`).join("\\n"),
      };
    },
  },
  created() {
    live.workflows = this.workflows;
    start();
  },
  mounted() {
    // Quasar's bar at the top would blink with each request of a playlist.
    Quasar.LoadingBar?.setDefaults({ hijackFilter: () => false });
    this.applyTheme();
  },
  methods: {
    device(device) {
      if (!device) return "";
      return device.kind === "cpu" ? "CPU demo" : device.name.replace(/^NVIDIA /, "");
    },
    turn() {
      const order = Object.keys(THEMES);
      this.theme = order[(order.indexOf(this.theme) + 1) % order.length];
      localStorage.setItem(THEME_KEY, this.theme);
      this.applyTheme();
    },
    applyTheme() {
      document.documentElement.dataset.theme = this.theme;
      Quasar.Dark.set(this.theme === "system" ? "auto" : this.theme === "dark");
    },
  },
};
