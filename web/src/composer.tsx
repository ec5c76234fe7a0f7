// Where messages are written.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Button } from "./parts";
import { serverProblem } from "./state";
import { fit } from "./thread";

interface ComposerProps {
  busy: boolean;
  ready: boolean;
  hint: string;
  onSend: (text: string) => void;
  onStop: () => void;
  children?: ComponentChildren;
}

export function Composer({ busy, ready, hint, onSend, onStop, children }: ComposerProps) {
  const [text, setText] = useState("");
  const at = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => fit(at.current!), [text]);
  useEffect(() => void (matchMedia("(hover: hover)").matches && at.current!.focus()), []);
  const can = ready && !busy && text.trim() !== "";
  const send = () => {
    if (!can) return;
    onSend(text);
    setText("");
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div class="box">
        <textarea
          id="message"
          ref={at}
          rows={1}
          aria-label="Message"
          placeholder={hint}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              send();
            } else if (event.key === "ArrowUp" && text === "") {
              event.preventDefault();
              [...document.querySelectorAll<HTMLButtonElement>("button.edit")].at(-1)?.click();
            }
          }}
        />
        {busy ? (
          <Button icon="stop" label="Stop" class="round" onClick={onStop} />
        ) : (
          <Button icon="send" label="Send" class="round" disabled={!can} onClick={send} />
        )}
      </div>
      <div class="under">
        {serverProblem.value ? <span class="problem-line">{serverProblem.value}</span> : <span class="keys">Enter sends, Shift+Enter is a new line</span>}
        {children}
      </div>
    </form>
  );
}
