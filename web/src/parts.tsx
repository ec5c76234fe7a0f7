// Small things that every view uses.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { statusOf } from "./api";
import type { Conversation } from "./conversation";
import { shownTurns } from "./conversation";
import { toClipboard } from "./clipboard";
import { rendered } from "./markdown";
import { contextOf, models, parametersOpen, refresh } from "./state";
import { say } from "./toasts";

const shapes = {
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  again: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13.5 6.5l4 4",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  left: "M15 6l-6 6 6 6",
  right: "M9 6l6 6-6 6",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  close: "M6 6l12 12M18 6L6 18",
  sliders: "M4 8h9M19 8h1M4 16h1M11 16h9M13 5.5h0M16 5.6v4.8M8 13.6v4.8",
  key: "M14.5 9.5a4 4 0 1 0-2 3.4L20 20M17 17l2-2",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  chat: "M4 5h16v11H9l-5 4z",
  curve: "M4 4v16h16M7 7c1 7 5 9.500 11 10",
  columns: "M4 5h7v14H4zM13 5h7v14h-7z",
  down: "M12 4v11M7 11l5 5 5-5M5 20h14",
  up: "M12 16V5M7 10l5-5 5 5M5 20h14",
  keyboard: "M3 7h18v10H3zM6 10h0M10 10h0M14 10h0M18 10h0M8 14h8",
  latest: "M12 5v14M6 13l6 6 6-6",
};

export function Icon({ name }: { name: keyof typeof shapes }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={shapes[name]} fill={name === "stop" ? "currentColor" : undefined} />
    </svg>
  );
}

interface ButtonProps {
  icon: keyof typeof shapes;
  label: string;
  onClick: () => void;
  text?: ComponentChildren;
  disabled?: boolean;
  pressed?: boolean;
  class?: string;
  id?: string;
}

export function Button({ icon, label, onClick, text, disabled, pressed, class: more, id }: ButtonProps) {
  return (
    <button type="button" id={id} class={`button ${more ?? ""}`} aria-label={label} title={label} aria-pressed={pressed} disabled={disabled} onClick={onClick}>
      <Icon name={icon} />
      {text && <span>{text}</span>}
    </button>
  );
}

// What is the same from the beginning stays in place, with what a reader has selected or scrolled there.
function update(box: HTMLElement, fresh: DocumentFragment) {
  let old = box.firstChild;
  while (old && fresh.firstChild?.isEqualNode(old)) {
    fresh.firstChild.remove();
    old = old.nextSibling;
  }
  while (old) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
  box.append(fresh);
}

export function Prose({ text }: { text: string }) {
  const at = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => update(at.current!, rendered(text)), [text]);
  return <div class="prose" ref={at} />;
}

export function ModelPicker({ value, label, onChange }: { value: string; label: string; onChange: (name: string) => void }) {
  return (
    <div class="picker">
      <select aria-label={label} value={value} onFocus={() => void refresh()} onChange={(event) => onChange(event.currentTarget.value)}>
        {!models.value.some((model) => model.id === value) && <option value={value}>{value || "no model"}</option>}
        {models.value.map((model) => (
          <option key={model.id} value={model.id}>
            {model.id + (statusOf(model) === "loaded" ? "" : ` (${statusOf(model)})`)}
          </option>
        ))}
      </select>
    </div>
  );
}

export const number = (value: number, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
export const rate = (value: number) => (value < 1 ? String(Number(value.toPrecision(2))) : number(value, value < 100 ? 1 : 0));

// How full the model's context is after the last answer.
export function Gauge({ conversation, model }: { conversation: Conversation | null; model: string }) {
  const context = contextOf(model);
  if (!context) return null;
  const last = conversation && shownTurns(conversation).findLast((turn) => turn.stats?.usage);
  const used = last?.stats?.usage?.total_tokens ?? 0;
  const share = Math.min(1, used / context);
  const words = `${number(used)} of ${number(context)} tokens of context`;
  return (
    <div class="gauge" role="meter" aria-label="Context" aria-valuemin={0} aria-valuemax={context} aria-valuenow={used} aria-valuetext={words} title={words}>
      <svg viewBox="0 0 20 20" aria-hidden="true">
        <circle cx="10" cy="10" r="8" class="gauge-track" />
        <circle cx="10" cy="10" r="8" class={share > 0.85 ? "gauge-part full" : "gauge-part"} stroke-dasharray={`${(share * 50.27).toFixed(2)} 60`} />
      </svg>
      <span>
        {number(used)} <small>/ {number(context)}</small>
      </span>
    </div>
  );
}

const parametersButton = "parameters-button";
export const ParametersButton = () => (
  <Button id={parametersButton} icon="sliders" label="Parameters" pressed={parametersOpen.value} onClick={() => (parametersOpen.value = !parametersOpen.value)} />
);
export function closeParameters() {
  parametersOpen.value = false;
  document.getElementById(parametersButton)?.focus();
}

export async function copyText(text: string) {
  try {
    await toClipboard(text);
    say("Copied.");
  } catch {
    say("The browser did not allow copying.");
  }
}

// Where fingers point, a focused field brings up a keyboard that covers the page and whose Enter has no Shift.
export const isTouched = () => matchMedia("(pointer: coarse)").matches;
export const focusMessage = () => void (!isTouched() && document.getElementById("message")?.focus());
// Enter, but not the one that ends the writing of a word with an input method (229: Safari).
export const isEnter = (event: KeyboardEvent) => event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;

// A modal box that Escape and a click beside it close.
export function Modal({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const at = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const box = at.current!;
    if (!box.open) box.showModal();
    return () => box.close();
  }, []);
  return (
    <dialog ref={at} aria-label={title} onCancel={onClose} onClose={onClose} onClick={(event) => event.target === at.current && onClose()}>
      <div class="dialog-body">
        <header>
          <h2>{title}</h2>
          <Button icon="close" label="Close" onClick={onClose} />
        </header>
        {children}
      </div>
    </dialog>
  );
}
