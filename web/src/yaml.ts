// SPDX-License-Identifier: Apache-2.0
// A specification as the job file that it came from could say it.

const PLAIN = /^(\.{0,2}\/|[A-Za-z_])[\w/.\-+*]*$/;
const WORDS = /^(true|false|null|yes|no|on|off|y|n)$/i;

function scalar(value: unknown): string {
  if (typeof value !== "string") return JSON.stringify(value);
  // Whole numbers of 64 bits come as strings.
  if (/^-?\d{1,18}$/.test(value)) return value;
  return quoted(value);
}

// Where it would be taken for something else.
function quoted(text: string): string {
  return PLAIN.test(text) && !WORDS.test(text) ? text : JSON.stringify(text);
}

export function toYaml(value: unknown, indent = ""): string {
  if (Array.isArray(value)) {
    return value
      .map((item) =>
        isBranch(item) ? `${indent}- ${toYaml(item, `${indent}  `).trimStart()}` : `${indent}- ${scalar(item)}\n`,
      )
      .join("");
  }
  return Object.entries(value as Record<string, unknown>)
    .map(([key, item]) => {
      const name = quoted(key);
      if (!isBranch(item)) return `${indent}${name}: ${scalar(item)}\n`;
      return isEmpty(item)
        ? `${indent}${name}: ${Array.isArray(item) ? "[]" : "{}"}\n`
        : `${indent}${name}:\n${toYaml(item, `${indent}  `)}`;
    })
    .join("");
}

function isBranch(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function isEmpty(value: object): boolean {
  return Object.keys(value).length === 0;
}

// Fields of several specifications, by their path: "training.learning_rate" → one value for each.
export function differences(specs: object[]): [string, string[]][] {
  const flat = specs.map((spec) => flatten(spec));
  const keys = [...new Set(flat.flatMap((fields) => [...fields.keys()]))];
  return keys
    .map((key): [string, string[]] => [key, flat.map((fields) => fields.get(key) ?? "–")])
    .filter(([, values]) => new Set(values).size > 1);
}

function flatten(value: object, prefix = ""): Map<string, string> {
  const found = new Map<string, string>();
  for (const [key, item] of Object.entries(value)) {
    if (isBranch(item) && !Array.isArray(item))
      for (const [path, leaf] of flatten(item, `${prefix}${key}.`)) found.set(path, leaf);
    else found.set(prefix + key, typeof item === "string" ? item : JSON.stringify(item));
  }
  return found;
}
