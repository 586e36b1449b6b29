/** The page at /docs: texts that the gateway serves as files of their own, since inline scripts and styles are not allowed there. */

export const pageHtml = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Taskmesh API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
</head>
<body>
<form id="access" hidden>
<label for="token">Token of the gateway</label>
<input id="token" type="password" autocomplete="off" required>
<button type="submit">Show</button>
</form>
<p id="message" role="status"></p>
<div id="page"></div>
<script src="/docs/swagger-ui.js"></script>
<script src="/docs/page.js"></script>
</body>
</html>
`;

export const pageStyle = `body { margin: 0; font-family: sans-serif; }
#access, #message { margin: 1rem auto; max-width: 1420px; padding: 0 20px; }
#access[hidden], #message:empty { display: none; }
`;

/** Loads the document, with the namespace of the page's own address; the token stays in the memory of the page. */
export const pageScript = `"use strict";
const access = document.getElementById("access");
const message = document.getElementById("message");

async function show(token) {
  const headers = token === "" ? {} : { authorization: "Bearer " + token };
  const answer = await fetch("/openapi.json" + location.search, { headers });
  const body = await answer.json();
  access.hidden = answer.status !== 401;
  message.textContent = answer.ok || (answer.status === 401 && token === "") ? "" : body.detail;
  if (!answer.ok) return;
  window.ui = SwaggerUIBundle({
    spec: body,
    dom_id: "#page",
    deepLinking: true,
    docExpansion: "none",
    defaultModelsExpandDepth: 0,
    requestInterceptor: (request) => {
      Object.assign(request.headers, headers);
      return request;
    },
  });
}

function load(token) {
  show(token).catch((error) => {
    message.textContent = "The document can't be loaded: " + error.message;
  });
}

access.addEventListener("submit", (event) => {
  event.preventDefault();
  load(document.getElementById("token").value);
});
load("");
`;
