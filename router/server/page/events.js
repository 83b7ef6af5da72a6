/** Server-sent events out of pieces of text, wherever those were cut. */
export class EventReader {
  #rest = ""; // of a line that has not ended
  #data = []; // lines of an event that has not ended
  #returned = false; // whether the last piece ended in a carriage return, which ends a line alone or with a newline

  /** The data of each event that ends in `piece`; comments and other fields say nothing here. */
  *read(piece) {
    const fresh = this.#returned && piece.startsWith("\n") ? piece.slice(1) : piece;
    this.#returned = fresh.endsWith("\r");
    const lines = (this.#rest + fresh).split(/\r\n|\n|\r/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      if (line !== "" || this.#data.length === 0) continue;
      yield this.#data.join("\n");
      this.#data = [];
    }
  }
}

/** The data of the events in a stream of bytes. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const found = new EventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* found.read(value);
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have failed already
  }
}
