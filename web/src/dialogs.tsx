// Boxes over the page, and the short messages.
import { useState } from "preact/hooks";
import { apiKey, keyIsRemembered, keyWanted, setKey } from "./api";
import { Button, Modal } from "./parts";
import { dialog, refresh, serverProblem } from "./state";
import { dismiss, say, spoken, toasts } from "./toasts";

const shortcuts: [string, string][] = [
  ["Enter", "send"],
  ["Shift Enter", "new line"],
  ["Escape", "stop the answer"],
  ["↑", "edit the last message, when nothing is written"],
  ["/", "write a message"],
  ["n", "new conversation"],
  ["s", "search conversations; Ctrl K too, while writing"],
  ["p", "parameters"],
  ["1 2 3", "chat, trade-off, side by side"],
  ["d", "dark or light"],
  ["?", "this list"],
];

function KeyBox({ onClose }: { onClose: () => void }) {
  const [key, setText] = useState(apiKey.value);
  const [remember, setRemember] = useState(keyIsRemembered());
  const save = async () => {
    setKey(key.trim(), remember);
    keyWanted.value = false;
    onClose();
    await refresh();
    if (!serverProblem.value) say("The server takes this key.");
  };
  return (
    <Modal title="API key" onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void save();
        }}
      >
        <p>
          {keyWanted.value && (apiKey.value ? "The server did not take this key. " : "The server wants a key. ")}
          It is what frugal serve was given with --api-key.
        </p>
        <label for="key">Key</label>
        <input id="key" type="password" autocomplete="off" autofocus value={key} onInput={(event) => setText(event.currentTarget.value)} />
        <label class="check">
          <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} /> Remember it on this device
        </label>
        <p class="note">Otherwise it is forgotten with this tab. It is sent to this server only.</p>
        <div class="row end">
          <button type="submit" class="primary">
            Use this key
          </button>
        </div>
      </form>
    </Modal>
  );
}

export function Dialogs() {
  const close = () => {
    dialog.value = "";
    keyWanted.value = false;
  };
  return (
    <>
      {dialog.value === "key" && <KeyBox onClose={close} />}
      {dialog.value === "shortcuts" && (
        <Modal title="Keyboard shortcuts" onClose={close}>
          <dl class="shortcuts">
            {shortcuts.map(([keys, what]) => (
              <div key={keys}>
                <dt>
                  {keys.split(" ").map((key) => (
                    <kbd key={key}>{key}</kbd>
                  ))}
                </dt>
                <dd>{what}</dd>
              </div>
            ))}
          </dl>
        </Modal>
      )}
      <div class="toasts" role="status">
        {toasts.value.map((toast) => (
          <div class="toast" key={toast.id}>
            <span>{toast.text}</span>
            {toast.action && (
              <button
                type="button"
                onClick={() => {
                  toast.action!.run();
                  dismiss(toast.id);
                }}
              >
                {toast.action.label}
              </button>
            )}
            <Button icon="close" label="Dismiss" onClick={() => dismiss(toast.id)} />
          </div>
        ))}
      </div>
      <div class="unseen" role="status">
        {spoken.value}
      </div>
    </>
  );
}
