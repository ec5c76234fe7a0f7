// The parameters of requests: what is not set here is not sent, so that the server's defaults count.
import type { Field } from "./api";
import { Button, closeParameters } from "./parts";
import { current, defaultOf, extraJson, modelOf, paneOf, parameterFields, parameters, requestFields, setSystem, stopTexts, systemDraft, view } from "./state";

const names: Record<string, string> = { max_tokens: "Most tokens", min_tokens: "Least tokens", seed: "Seed" };
const nameOf = (field: Field) => names[field.name] ?? (field.name[0].toUpperCase() + field.name.slice(1)).replaceAll("_", " ");

function setParameter(name: string, value: number | undefined) {
  const { [name]: _, ...others } = parameters.value;
  parameters.value = value === undefined ? others : { ...others, [name]: value };
}

function NumberField({ field, model }: { field: Field; model: string }) {
  const { name, help, min = -Infinity, max = Infinity, integer = false } = field;
  const value = parameters.value[name];
  const usual = defaultOf(model, name);
  const step = integer ? 1 : 0.01;
  const take = (text: string) => {
    const number = Number(text);
    if (text.trim() === "") setParameter(name, undefined);
    else if (Number.isFinite(number)) setParameter(name, Math.min(max, Math.max(min, integer ? Math.round(number) : number)));
  };
  return (
    <div class={value === undefined ? "parameter" : "parameter set"}>
      <label for={`p-${name}`}>{nameOf(field)}</label>
      <input
        id={`p-${name}`}
        type="number"
        inputMode="decimal"
        value={value ?? ""}
        placeholder={usual === undefined ? "—" : String(Number(usual.toPrecision(6)))}
        min={Number.isFinite(min) ? min : undefined}
        max={Number.isFinite(max) ? max : undefined}
        step={integer ? 1 : "any"}
        aria-describedby={`h-${name}`}
        onChange={(event) => {
          take(event.currentTarget.value);
          event.currentTarget.value = String(parameters.value[name] ?? "");
        }}
      />
      {max - min <= 10 && (
        <input
          type="range"
          aria-label={nameOf(field)}
          min={Math.round(min * 100) / 100}
          max={max}
          step={step}
          value={value ?? usual ?? min}
          onInput={(event) => take(event.currentTarget.value)}
        />
      )}
      {value !== undefined && <Button icon="close" label={`${nameOf(field)}: the server's default`} onClick={() => setParameter(name, undefined)} />}
      <small id={`h-${name}`}>{help}</small>
    </div>
  );
}

function extraProblem(): string {
  try {
    requestFields();
    return "";
  } catch (error) {
    return (error as Error).message;
  }
}

export function Parameters() {
  const both = view.value === "compare";
  const conversation = both ? paneOf("a") : current.value;
  const model = modelOf(conversation);
  const any = Object.keys(parameters.value).length > 0 || stopTexts.value !== "" || extraJson.value !== "";
  const problem = extraProblem();
  return (
    <aside class="parameters" aria-label="Parameters">
      <header>
        <h2>Parameters</h2>
        <Button icon="close" label="Close the parameters" onClick={closeParameters} />
      </header>
      <div class="parameter wide">
        <label for="p-system">{both ? "System prompt of both" : "System prompt of this conversation"}</label>
        <textarea
          id="p-system"
          rows={3}
          dir="auto"
          value={conversation ? conversation.system : systemDraft.value}
          onInput={(event) => setSystem(event.currentTarget.value)}
        />
      </div>
      <p class="note">What is empty is not sent: the default of {model || "the model"} counts, shown in grey.</p>
      {parameterFields.value.map((field) => (
        <NumberField key={field.name} field={field} model={model} />
      ))}
      <div class="parameter wide">
        <label for="p-stop">Texts that end the answer, one a line</label>
        <textarea id="p-stop" rows={2} value={stopTexts.value} onInput={(event) => (stopTexts.value = event.currentTarget.value)} />
      </div>
      <div class="parameter wide">
        <label for="p-extra">Further fields of the request, as JSON</label>
        <textarea
          id="p-extra"
          rows={3}
          class="code-text"
          spellcheck={false}
          placeholder={'{"response_format": {"type": "json_object"}}'}
          value={extraJson.value}
          aria-invalid={problem !== ""}
          onInput={(event) => (extraJson.value = event.currentTarget.value)}
        />
        {problem && <small class="problem-line">{problem}</small>}
      </div>
      <button
        type="button"
        class="plain"
        disabled={!any}
        onClick={() => {
          parameters.value = {};
          stopTexts.value = "";
          extraJson.value = "";
        }}
      >
        All defaults
      </button>
    </aside>
  );
}
