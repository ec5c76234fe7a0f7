// The turns of a conversation, with what can be done to each.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { childrenOf, type Conversation, shownTurns, type Turn } from "./conversation";
import { Button, copyText, focusMessage, isEnter, isTouched, number, Prose, rate } from "./parts";
import { busy } from "./library";
import { dialog, edit, isLoaded, regenerate, showBranch } from "./state";

function Branches({ conversation, turn }: { conversation: Conversation; turn: Turn }) {
  const siblings = childrenOf(conversation, turn.parent);
  if (siblings.length < 2) return null;
  const place = siblings.findIndex((other) => other.id === turn.id) + 1;
  return (
    <div class="branches" role="group" aria-label="Versions">
      <Button icon="left" label="Earlier version" disabled={place === 1} onClick={() => showBranch(conversation.id, turn, -1)} />
      <span>
        {place}/{siblings.length}
      </span>
      <Button icon="right" label="Later version" disabled={place === siblings.length} onClick={() => showBranch(conversation.id, turn, 1)} />
    </div>
  );
}

function Editor({ text, onSave, onCancel }: { text: string; onSave: (text: string) => void; onCancel: () => void }) {
  const [value, setValue] = useState(text);
  const at = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    at.current!.focus();
    at.current!.setSelectionRange(text.length, text.length);
  }, []);
  useLayoutEffect(() => fit(at.current!), [value]);
  const save = () => value.trim() && onSave(value);
  return (
    <div class="editor">
      <textarea
        ref={at}
        rows={1}
        dir="auto"
        aria-label="Edit the message"
        value={value}
        onInput={(event) => setValue(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (isEnter(event) && !isTouched()) {
            event.preventDefault();
            save();
          } else if (event.key === "Escape") {
            event.stopPropagation();
            onCancel();
          }
        }}
      />
      <div class="row end">
        <button type="button" class="plain" onClick={onCancel}>
          Cancel
        </button>
        <button type="button" class="primary" disabled={!value.trim()} onClick={save}>
          Send
        </button>
      </div>
    </div>
  );
}

// As high as its text, up to what its style allows.
export function fit(area: HTMLTextAreaElement) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

function UserTurn({ conversation, turn }: { conversation: Conversation; turn: Turn }) {
  const [editing, setEditing] = useState(false);
  const at = useRef<HTMLElement>(null);
  return (
    <article class="turn user" aria-label="You" ref={at}>
      {editing ? (
        <Editor
          text={turn.content}
          onCancel={() => {
            setEditing(false);
            requestAnimationFrame(() => at.current?.querySelector<HTMLElement>("button.edit")?.focus());
          }}
          onSave={(text) => {
            setEditing(false);
            edit(conversation.id, turn, text);
            focusMessage();
          }}
        />
      ) : (
        <div class="bubble" dir="auto">
          {turn.content}
        </div>
      )}
      <footer>
        <Branches conversation={conversation} turn={turn} />
        {!editing && <Button icon="edit" label="Edit this message" class="edit" onClick={() => setEditing(true)} />}
        {!editing && <Button icon="copy" label="Copy this message" onClick={() => void copyText(turn.content)} />}
      </footer>
    </article>
  );
}

function Figures({ turn }: { turn: Turn }) {
  const { usage, rate: tokens, first } = turn.stats ?? {};
  const live = turn.state === "streaming";
  const details = [
    usage && `${number(usage.prompt_tokens)} tokens read${usage.prompt_tokens_details?.cached_tokens ? `, ${number(usage.prompt_tokens_details.cached_tokens)} of them cached` : ""}`,
    first !== undefined && `first text after ${number(first, 2)} s`,
  ].filter(Boolean);
  return (
    <span class="figures" title={details.join("; ")}>
      {turn.model && <span class="of-model">{turn.model}</span>}
      {tokens !== undefined && (
        <span class="rate">
          {live && "≈ "}
          {rate(tokens)} tok/s
        </span>
      )}
      {usage && <span>{number(usage.completion_tokens)} tokens</span>}
    </span>
  );
}

function AssistantTurn({ conversation, turn }: { conversation: Conversation; turn: Turn }) {
  const live = turn.state === "streaming";
  const again = () => regenerate(conversation.id, turn);
  return (
    <article class={`turn assistant ${turn.state}`} aria-label={`Answer of ${turn.model}`} aria-busy={live}>
      {turn.reasoning && (
        <details class="reasoning">
          <summary>{live && !turn.content ? "Thinking …" : "Reasoning"}</summary>
          <Prose text={turn.reasoning} />
        </details>
      )}
      {turn.content && <Prose text={turn.content} />}
      {turn.tools && <Prose text={`\`\`\`json\n${turn.tools}\n\`\`\``} />}
      {live && !turn.content && !turn.reasoning && (
        <div class="waiting" role="img" aria-label="Waiting for the first words">
          <i />
          <i />
          <i />
          {!isLoaded(turn.model ?? "") && <span>Loading {turn.model} …</span>}
        </div>
      )}
      {(turn.state === "broken" || turn.state === "left") && (
        <div class="problem" role="alert">
          <span>{turn.state === "left" ? "The page was left before the answer ended." : turn.error}</span>
          <button type="button" class="plain" onClick={again}>
            Try again
          </button>
          {/API Key/i.test(turn.error ?? "") && (
            <button type="button" class="plain" onClick={() => (dialog.value = "key")}>
              Enter a key
            </button>
          )}
        </div>
      )}
      <footer>
        <Branches conversation={conversation} turn={turn} />
        {!live && <Button icon="again" label="Another answer" class="again" onClick={again} />}
        {!live && turn.content && <Button icon="copy" label="Copy this answer" onClick={() => void copyText(turn.content)} />}
        {turn.state === "done" && !turn.content && !turn.reasoning && !turn.tools && <span class="note">an empty answer</span>}
        {turn.state === "stopped" && <span class="note">stopped</span>}
        {turn.state === "length" && <span class="note">cut off: the limit of tokens was reached</span>}
        <Figures turn={turn} />
      </footer>
    </article>
  );
}

// Its end stays in sight while it grows, until a reader scrolls up.
export function Thread({ conversation }: { conversation: Conversation }) {
  const turns = shownTurns(conversation);
  const at = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const top = useRef(0);
  const [isAway, setAway] = useState(false);
  const last = turns.at(-1);
  const length = (last?.content.length ?? 0) + (last?.reasoning?.length ?? 0);
  const distance = () => at.current!.scrollHeight - at.current!.scrollTop - at.current!.clientHeight;
  // A reader's scrolling since `top`: it may be here before its event is.
  const notice = () => {
    const now = at.current!.scrollTop;
    if (now < top.current && distance() > 1) follows.current = false;
    else if (now > top.current && distance() < 60) follows.current = true;
    top.current = now;
  };
  const look = () => {
    notice();
    if (follows.current) at.current!.scrollTop = at.current!.scrollHeight;
    top.current = at.current!.scrollTop;
    setAway(distance() > 120);
  };
  const toEnd = () => {
    follows.current = true;
    top.current = at.current!.scrollTop;
    look();
  };
  useLayoutEffect(look, [length, last?.state]);
  useLayoutEffect(toEnd, [turns.length]);
  useEffect(() => {
    const watch = new ResizeObserver(look); // the input grows, the window changes
    watch.observe(at.current!);
    return () => watch.disconnect();
  }, []);
  return (
    <div class="frame">
      <div
        class="thread"
        ref={at}
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label="Conversation"
        aria-busy={busy.value.has(conversation.id)}
        onScroll={() => {
          notice();
          setAway(distance() > 120);
        }}
        onWheel={(event) => {
          if (event.deltaY < 0 && at.current!.scrollTop > 0) follows.current = false; // before what grows can undo it
        }}
      >
        <div class="measure">
          {conversation.system.trim() && (
            <details class="system">
              <summary>System prompt</summary>
              <p dir="auto">{conversation.system}</p>
            </details>
          )}
          {turns.map((turn) =>
            turn.role === "user" ? (
              <UserTurn key={turn.id} conversation={conversation} turn={turn} />
            ) : (
              <AssistantTurn key={turn.id} conversation={conversation} turn={turn} />
            ),
          )}
        </div>
      </div>
      {isAway && <Button icon="latest" label="To the end" class="to-end" onClick={toEnd} />}
    </div>
  );
}
