// The page that frugal serve shows: chat, trade-off, side by side.
import { render } from "preact";
import { useEffect } from "preact/hooks";
import "./style.css";
import "./chat.css";
import "./tradeoff.css";
import { Compare } from "./compare";
import { Composer } from "./composer";
import { Dialogs } from "./dialogs";
import { bytes, factsOf } from "./ledger";
import { Parameters } from "./parameters";
import { Button, closeParameters, focusMessage, Gauge, ModelPicker, number, ParametersButton } from "./parts";
import { busy } from "./library";
import {
  begin,
  chooseModel,
  contextOf,
  current,
  currentId,
  dialog,
  go,
  menuOpen,
  modelOf,
  models,
  parametersOpen,
  refresh,
  sendInChat,
  serverProblem,
  stopShown,
  toggleTheme,
  view,
} from "./state";
import { Sidebar } from "./sidebar";
import { Thread } from "./thread";
import { TradeOff } from "./tradeoff";

function Welcome({ model }: { model: string }) {
  const card = models.value.find((one) => one.id === model);
  const context = contextOf(model);
  const facts = [
    card?.meta?.n_params && `${number(card.meta.n_params / 1e6)} M weights`,
    card?.meta?.size && bytes(card.meta.size),
    context && `${number(context)} tokens of context`,
  ].filter(Boolean);
  return (
    <div class="thread welcome">
      <h2>What is on your mind?</h2>
      {card ? (
        <p>
          <b>{card.id}</b> answers from this machine: {facts.join(", ")}.
          {factsOf(model) && (
            <>
              <br />
              In the ledger: {factsOf(model)}.
            </>
          )}
        </p>
      ) : (
        serverProblem.value && (
          <p class="problem" role="alert">
            <span>{serverProblem.value}</span>
            <button type="button" class="plain" onClick={() => void refresh()}>
              Try again
            </button>
          </p>
        )
      )}
    </div>
  );
}

function Chat() {
  const conversation = current.value;
  const model = modelOf(conversation);
  return (
    <main class="page" id="main">
      <header class="bar">
        <Button icon="menu" label="Menu" class="narrow-only" onClick={() => (menuOpen.value = true)} />
        <h1 class="unseen">{conversation?.title || "New conversation"}</h1>
        <ModelPicker value={model} label="Model" onChange={(name) => chooseModel(conversation, name)} />
        <Gauge conversation={conversation} model={model} />
        <ParametersButton />
      </header>
      {conversation ? <Thread key={conversation.id} conversation={conversation} /> : <Welcome model={model} />}
      <Composer
        place={conversation?.id ?? ""}
        busy={busy.value.has(currentId.value)}
        ready={models.value.length > 0}
        hint={model ? `Ask ${model}` : "Ask"}
        onSend={sendInChat}
        onStop={stopShown}
      />
    </main>
  );
}

function onKey(event: KeyboardEvent) {
  if (event.defaultPrevented || dialog.value || event.isComposing) return;
  const search = () => {
    menuOpen.value = true;
    requestAnimationFrame(() => document.getElementById("search")?.focus());
  };
  if ((event.ctrlKey || event.metaKey) && event.key === "k") {
    event.preventDefault();
    return search();
  }
  if (event.key === "Escape") {
    if (stopShown()) return;
    menuOpen.value = false;
    if (parametersOpen.value) return closeParameters();
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    return;
  }
  const writing = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]");
  if (writing || event.ctrlKey || event.metaKey || event.altKey) return;
  const does: Record<string, () => void> = {
    "/": () => document.getElementById("message")?.focus(),
    n: () => {
      go("#/");
      requestAnimationFrame(focusMessage);
    },
    s: search,
    p: () => (parametersOpen.value = view.value !== "tradeoff" && !parametersOpen.value),
    d: toggleTheme,
    "1": () => go("#/"),
    "2": () => go("#/tradeoff"),
    "3": () => go("#/compare"),
    "?": () => (dialog.value = "shortcuts"),
  };
  const action = does[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function Page() {
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const at = view.value;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("message")?.focus())}>
        Skip to the message
      </a>
      <Sidebar />
      {menuOpen.value && <div class="shade" onClick={() => (menuOpen.value = false)} />}
      {at === "tradeoff" ? <TradeOff /> : at === "compare" ? <Compare /> : <Chat />}
      {at !== "tradeoff" && parametersOpen.value && <Parameters />}
      <Dialogs />
    </>
  );
}

void begin();
render(<Page />, document.getElementById("page")!);
