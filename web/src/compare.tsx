// Two models, one input: both answer at once.
import { useEffect } from "preact/hooks";
import { Composer } from "./composer";
import { factsOf } from "./ledger";
import { Button, Gauge, ModelPicker, ParametersButton } from "./parts";
import { busy, loaded } from "./library";
import { keepPane, menuOpen, modelOf, models, type Pane, paneOf, preparePanes, resetPane, send, setPaneModel, stopShown } from "./state";
import { Thread } from "./thread";

function Column({ pane }: { pane: Pane }) {
  const conversation = paneOf(pane);
  if (!conversation) return null;
  const model = modelOf(conversation);
  const facts = factsOf(model);
  const empty = Object.keys(conversation.turns).length === 0;
  return (
    <section class="column" aria-label={pane === "a" ? "Left model" : "Right model"}>
      <header>
        <div class="row between">
          <ModelPicker value={model} label={pane === "a" ? "Left model" : "Right model"} onChange={(name) => setPaneModel(pane, name)} />
          <Gauge conversation={conversation} model={model} />
          <Button icon="chat" label="Keep as a conversation" disabled={empty} onClick={() => keepPane(pane)} />
        </div>
        {facts && <p class="note">{facts}</p>}
      </header>
      <Thread key={conversation.id} conversation={conversation} />
    </section>
  );
}

export function Compare() {
  const [a, b] = [paneOf("a"), paneOf("b")];
  useEffect(preparePanes, [models.value, loaded.value, !a, !b]);
  const working = [a, b].some((one) => one && busy.value.has(one.id));
  return (
    <main class="page" id="main">
      <header class="bar">
        <Button icon="menu" label="Menu" class="narrow-only" onClick={() => (menuOpen.value = true)} />
        <h1>Side by side</h1>
        <Button
          icon="plus"
          label="Begin anew"
          onClick={() => {
            if (a) resetPane("a", a.model);
            if (b) resetPane("b", b.model);
          }}
        />
        <ParametersButton />
      </header>
      <div class="columns">
        <Column pane="a" />
        <Column pane="b" />
      </div>
      <Composer
        place="compare"
        busy={working}
        ready={!!a && !!b && models.value.length > 0}
        hint="Ask both"
        onStop={stopShown}
        onSend={(text) => {
          send(a!.id, text);
          send(b!.id, text);
        }}
      />
    </main>
  );
}
