// An icon of the sprite: <dbx-icon name="film" />. Decorative; the text beside it speaks.

const sprite = () => document.querySelector('meta[name="diffbox-static"]').content + "/icons.svg#";

export const Icon = {
  props: { name: String },
  template: `<svg class="icon" aria-hidden="true" focusable="false"><use :href="href"></use></svg>`,
  computed: {
    href() {
      return sprite() + this.name;
    },
  },
};
