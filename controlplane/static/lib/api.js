// Our REST API from the browser: one error class, uploads with progress.

export const url = (path) => (window.path_prefix || "") + path;

export class ApiError extends Error {
  constructor({ code, message, retryable = false, problems = [] }, status = 0) {
    super(message);
    Object.assign(this, { code, retryable, problems, status });
  }
}

const OFFLINE = {
  code: "offline",
  message: "No connection to diffbox. Check that it is running, then try again.",
  retryable: true,
};

function errorOf(status, text) {
  try {
    const { error } = JSON.parse(text);
    if (error?.message) return new ApiError(error, status);
  } catch {
    // Not ours: a proxy's page, for example. The status is all we can tell.
  }
  return new ApiError({ code: "http", message: `The server answered ${status}.`, retryable: status >= 500 }, status);
}

export async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url(path), { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ApiError(OFFLINE);
  }
  const text = await response.text();
  if (response.status === 401) location.reload(); // the session has ended: the guard shows the sign-in page
  if (!response.ok) throw errorOf(response.status, text);
  return text ? JSON.parse(text) : null;
}

// XMLHttpRequest, because fetch does not tell how much of a body was sent.
export function upload(file, onProgress) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.open("POST", url("/api/uploads?filename=" + encodeURIComponent(file.name || "pasted")));
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.upload.onprogress = (e) => e.lengthComputable && onProgress(e.loaded / e.total);
    request.onload = () =>
      request.status < 300 ? resolve(JSON.parse(request.responseText)) : reject(errorOf(request.status, request.responseText));
    request.onerror = () => reject(new ApiError(OFFLINE));
    request.onabort = () => reject(new ApiError({ code: "aborted", message: "Upload stopped." }));
    request.send(file);
  });
  return { done, abort: () => request.abort() };
}

// Goes to a page of ours without a reload; NiceGUI's sub pages listen for this event.
export function go(path) {
  if (window.emitEvent && window.did_handshake) emitEvent("sub_pages_navigate", path);
  else location.assign(url(path));
}
