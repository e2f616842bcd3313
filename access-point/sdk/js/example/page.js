// The page's two devices. Behind the # of its address, which browsers send to nobody:
//   at     host and port of an access point
//   mqtt   the token of the device that speaks MQTT
//   sse    the token of the device that listens to events
import { Terminal } from "fanfare";
import { EventTerminal } from "fanfare/events";

const given = new URLSearchParams(location.hash.slice(1));
const scheme = location.protocol === "https:" ? "s" : "";

/** Which device of which app a token is for. */
function claims(token) {
  const { app, sub } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  return { app, device: sub };
}

/** What a device tells, shown in its section; also on the console, for whoever watches there. */
function shownIn(section) {
  const [state, list] = [section.querySelector(".state"), section.querySelector("ul")];
  const say = (line) => console.info(JSON.stringify({ via: section.id, ...line }));
  return {
    storage: localStorage,
    onState: (name, detail) => {
      state.textContent = name;
      state.dataset.state = name;
      say({ event: name, detail });
    },
    onMessage: ({ id, seq, type, payload }) => {
      const [item, small] = [document.createElement("li"), document.createElement("small")];
      small.textContent = `${type} ${seq}`;
      item.append(JSON.stringify(payload), document.createElement("br"), small);
      list.prepend(item);
      say({ event: "message", id, seq, type, payload });
    },
    onOrder: (order) => say({ event: "order", order }),
  };
}

const at = given.get("at");
const [mqtt, sse] = [given.get("mqtt"), given.get("sse")];
if (mqtt) {
  const shown = shownIn(document.querySelector("#mqtt"));
  new Terminal({ ...claims(mqtt), token: mqtt, endpoints: [`ws${scheme}://${at}/mqtt`], ...shown }).start();
}
if (sse) {
  const shown = shownIn(document.querySelector("#sse"));
  new EventTerminal({ ...claims(sse), token: sse, accessPoint: `http${scheme}://${at}`, ...shown }).start();
}
