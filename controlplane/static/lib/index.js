// The entry of the import map's "diffbox"; islands import the files beside it.
export { live } from "./live.js";
