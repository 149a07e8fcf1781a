// SPDX-License-Identifier: Apache-2.0
// When steps ended.

// The index of the first of `steps`, which are in order, that is not before `step`; their number where all are.
export function firstFrom(steps: number[], step: number): number {
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle]! < step) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The index of the one that is nearest; null where there are none.
export function nearest(steps: number[], step: number): number | null {
  const after = firstFrom(steps, step);
  if (after === steps.length) return steps.length > 0 ? steps.length - 1 : null;
  return after > 0 && step - steps[after - 1]! < steps[after]! - step ? after - 1 : after;
}

// The indices of some of `steps`, which are in order: `most` at most, the first in each of as many even stretches, and the
// newest. A stretch is a power of two, so that what is thinned again and again stays even.
export function thinned(steps: number[], most: number): number[] {
  const [first, last] = [steps[0]!, steps.at(-1)!];
  const stretch = 2 ** Math.ceil(Math.log2((last - first + 1) / (most - 1)));
  const place = (i: number) => Math.floor((steps[i]! - first) / stretch);
  return [...steps.keys()].filter((i) => i === 0 || i === steps.length - 1 || place(i) !== place(i - 1));
}

// In seconds since the job was created. In a long history only of some steps: times between them are on a line.
export class StepTimes {
  private steps: number[] = [];
  private seconds: number[] = [];

  constructor(private readonly most: number) {}

  // A step that is taken again takes the place of the first, and of what came after it.
  add(step: number, seconds: number): void {
    const index = firstFrom(this.steps, step);
    this.steps.length = this.seconds.length = index;
    this.steps.push(step);
    this.seconds.push(seconds);
    if (this.steps.length <= 2 * this.most) return;
    const kept = thinned(this.steps, this.most);
    this.steps = kept.map((i) => this.steps[i]!);
    this.seconds = kept.map((i) => this.seconds[i]!);
  }

  // Null outside of what is known.
  at(step: number): number | null {
    const after = firstFrom(this.steps, step);
    if (this.steps[after] === step) return this.seconds[after]!;
    if (after === 0 || after === this.steps.length) return null;
    const [from, to] = [this.steps[after - 1]!, this.steps[after]!];
    const [begin, end] = [this.seconds[after - 1]!, this.seconds[after]!];
    return begin + ((step - from) / (to - from)) * (end - begin);
  }
}
