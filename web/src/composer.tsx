// Where messages are written. What is not sent yet stays with its conversation while this tab lives.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Button, focusMessage, isEnter, isTouched } from "./parts";
import { drafts, serverProblem } from "./state";
import { fit } from "./thread";

interface ComposerProps {
  place: string; // where the draft belongs
  busy: boolean;
  ready: boolean;
  hint: string;
  onSend: (text: string) => void;
  onStop: () => void;
  children?: ComponentChildren;
}

export function Composer({ place, busy, ready, hint, onSend, onStop, children }: ComposerProps) {
  const text = drafts.value[place] ?? "";
  const setText = (value: string) => {
    const { [place]: _, ...others } = drafts.value;
    drafts.value = value ? { ...others, [place]: value } : others;
  };
  const at = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => fit(at.current!), [text]);
  useEffect(focusMessage, [place]);
  const can = ready && !busy && text.trim() !== "";
  const send = () => {
    if (!can) return;
    setText("");
    onSend(text);
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
          dir="auto"
          aria-label="Message"
          placeholder={hint}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (isEnter(event) && !isTouched()) {
              event.preventDefault();
              send();
            } else if (event.key === "ArrowUp" && text === "") {
              event.preventDefault();
              [...document.querySelectorAll<HTMLButtonElement>("button.edit")].at(-1)?.click();
            }
          }}
        />
        {busy ? (
          <Button
            icon="stop"
            label="Stop"
            class="round"
            onClick={() => {
              onStop();
              focusMessage();
            }}
          />
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
