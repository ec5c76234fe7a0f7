// Views, the list of conversations with search, and what belongs to the whole page.
import { useRef, useState } from "preact/hooks";
import { type Conversation, exported, matches } from "./conversation";
import { Button, focusMessage, Icon, isEnter } from "./parts";
import { busy, change, conversationOf, conversations, listed } from "./library";
import { current, currentId, dialog, go, importText, isDark, menuOpen, removeConversation, toggleTheme, view } from "./state";
import { say } from "./toasts";

function download(name: string, text: string) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const day = 24 * 3600 * 1000;
function ageOf(time: number): string {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (time >= midnight) return "Today";
  if (time >= midnight - day) return "Yesterday";
  return time >= midnight - 7 * day ? "This week" : "Earlier";
}

function Entry({ conversation }: { conversation: Conversation }) {
  const [naming, setNaming] = useState(false);
  const shown = conversation.id === currentId.value && view.value === "chat";
  const title = conversation.title || "New conversation";
  const rename = (text: string) => {
    setNaming(false);
    if (text.trim()) change(conversation.id, (one) => ({ ...one, title: text.trim().slice(0, 120) }));
  };
  return (
    <li class={shown ? "entry shown" : "entry"}>
      {naming ? (
        <input
          aria-label="Title"
          dir="auto"
          value={conversation.title}
          ref={(input) => input?.focus()}
          onBlur={(event) => rename(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (isEnter(event)) rename(event.currentTarget.value);
            if (event.key !== "Escape") return;
            event.stopPropagation();
            event.currentTarget.value = ""; // its blur names nothing
            setNaming(false);
          }}
        />
      ) : (
        <a href={`#/c/${conversation.id}`} aria-current={shown ? "page" : undefined} title={title} onClick={() => (menuOpen.value = false)}>
          {busy.value.has(conversation.id) && <i class="live" aria-label="answering" />}
          <bdi>{title}</bdi>
        </a>
      )}
      <div class="entry-tools">
        <Button icon="edit" label={`Rename ${title}`} onClick={() => setNaming(true)} />
        <Button icon="down" label={`Export ${title}`} onClick={() => download("conversation.json", exported([conversationOf(conversation.id)!]))} />
        <Button icon="trash" label={`Delete ${title}`} onClick={() => removeConversation(conversation.id)} />
      </div>
    </li>
  );
}

function List() {
  const [wanted, setWanted] = useState("");
  const matching = wanted.trim() && new Set(conversations.value.filter((one) => matches(one, wanted)).map((one) => one.id));
  const found = matching ? listed.value.filter((one) => matching.has(one.id)) : listed.value;
  const ages = [...new Set(found.map((one) => ageOf(one.updated)))];
  return (
    <>
      <input id="search" type="search" aria-label="Search conversations" placeholder="Search" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />
      <div class="list">
        {ages.map((age) => (
          <section key={age}>
            <h2>{age}</h2>
            <ul>
              {found
                .filter((one) => ageOf(one.updated) === age)
                .map((one) => (
                  <Entry key={one.id} conversation={one} />
                ))}
            </ul>
          </section>
        ))}
        {found.length === 0 && <p class="nothing">{wanted.trim() ? "Nothing is found." : "Conversations stay in this browser."}</p>}
      </div>
    </>
  );
}

async function take(files: FileList | null) {
  for (const file of files ?? []) {
    try {
      const count = importText(await file.text());
      say(`Imported ${count} ${count === 1 ? "conversation" : "conversations"}.`);
    } catch (error) {
      say(`${file.name} was not imported. ${(error as Error).message}`);
    }
  }
}

const places = [
  { to: "#/", view: "chat", icon: "chat", label: "Chat" },
  { to: "#/tradeoff", view: "tradeoff", icon: "curve", label: "Trade-off" },
  { to: "#/compare", view: "compare", icon: "columns", label: "Side by side" },
] as const;

export function Sidebar() {
  const file = useRef<HTMLInputElement>(null);
  return (
    <aside class={menuOpen.value ? "side open" : "side"} id="side" aria-label="Menu">
      <div class="brand">
        <a href="#/" class="wordmark" aria-label="frugal, new conversation">
          frugal
        </a>
        <Button icon="close" label="Close the menu" class="narrow-only" onClick={() => (menuOpen.value = false)} />
      </div>
      <nav aria-label="Views">
        {places.map((place) => (
          <a key={place.to} href={place.view === "chat" && view.value !== "chat" && current.value ? `#/c/${currentId.value}` : place.to} class="place" aria-current={view.value === place.view ? "page" : undefined}>
            <Icon name={place.icon} />
            {place.label}
          </a>
        ))}
      </nav>
      <button
        type="button"
        class="new"
        onClick={() => {
          go("#/");
          menuOpen.value = false;
          focusMessage();
        }}
      >
        <Icon name="plus" />
        New conversation
      </button>
      <List />
      <div class="side-tools">
        <Button icon="up" label="Import conversations" onClick={() => file.current!.click()} />
        <Button icon="down" label="Export all conversations" disabled={!listed.value.length} onClick={() => download("conversations.json", exported(listed.value.map((one) => conversationOf(one.id)!)))} />
        <Button icon="key" label="API key" onClick={() => (dialog.value = "key")} />
        <Button icon="keyboard" label="Keyboard shortcuts" onClick={() => (dialog.value = "shortcuts")} />
        <Button icon={isDark.value ? "sun" : "moon"} label={isDark.value ? "Light colours" : "Dark colours"} onClick={toggleTheme} />
        <input
          ref={file}
          id="import"
          type="file"
          accept="application/json,.json"
          multiple
          hidden
          onChange={async (event) => {
            const input = event.currentTarget;
            await take(input.files);
            input.value = "";
          }}
        />
      </div>
    </aside>
  );
}
