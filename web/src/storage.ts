// Conversations stay in this browser, in IndexedDB. Where that is not to be had they last as long as the page.
import type { Conversation } from "./conversation";

const request = <T>(of: IDBRequest<T>) =>
  new Promise<T>((resolve, reject) => {
    of.onsuccess = () => resolve(of.result);
    of.onerror = () => reject(of.error);
  });

let database: Promise<IDBDatabase> | undefined;

function opened(): Promise<IDBDatabase> {
  return (database ??= new Promise((resolve, reject) => {
    const open = indexedDB.open("frugal", 1);
    open.onupgradeneeded = () => open.result.createObjectStore("conversations", { keyPath: "id" });
    open.onsuccess = () => resolve(open.result);
    open.onerror = () => reject(open.error);
  }));
}

export async function loadAll(): Promise<Conversation[]> {
  return request((await opened()).transaction("conversations").objectStore("conversations").getAll());
}

// All in one transaction, begun at once: a page that is left meanwhile keeps all or nothing.
export async function write(changes: Map<string, Conversation | undefined>) {
  const transaction = (await opened()).transaction("conversations", "readwrite");
  const store = transaction.objectStore("conversations");
  for (const [id, conversation] of changes) conversation ? store.put(conversation) : store.delete(id);
  await new Promise<void>((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}
