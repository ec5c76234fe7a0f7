// Short messages at the upper edge, and what screen readers are told.
import { signal } from "@preact/signals";

export interface Toast {
  id: number;
  text: string;
  action?: { label: string; run: () => void };
}
export const toasts = signal<Toast[]>([]);
let count = 0;
export function say(text: string, action?: Toast["action"]) {
  const id = ++count;
  toasts.value = [...toasts.value.slice(-2), { id, text, action }];
  setTimeout(() => dismiss(id), action ? 10_000 : Math.max(4_000, 90 * text.length)); // as long as it takes to read
}
export const dismiss = (id: number) => (toasts.value = toasts.value.filter((toast) => toast.id !== id));
export const spoken = signal("");
