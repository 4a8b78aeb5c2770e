// The sprite's icon as an element for Python.
export { Icon as default } from "diffbox/icon.js";
