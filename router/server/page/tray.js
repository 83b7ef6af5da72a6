/** The pictures that belong to the next question, and the list that shows them. */
export class Tray {
  pictures = [];
  #list;
  #say;
  #reading = Promise.resolve(); // of files, one after the other, so that their order stays
  #unnamed = 0;

  /** `say` is told in words what was added and what was not. */
  constructor(list, say) {
    this.#list = list;
    this.#say = say;
  }

  /** Read files as pictures. */
  add(files) {
    const wanted = [...files]; // the browser empties its list when the event is over
    this.#reading = this.#reading.then(async () => {
      const read = await Promise.all(wanted.map((file) => this.#read(file)));
      const found = read.filter(({ address }) => address);
      this.put([...this.pictures, ...found]);
      this.#say(found, read.flatMap(({ problem }) => problem ?? []).join(" "));
    });
    return this.#reading;
  }

  /** The pictures, once all of them are read. */
  async whole() {
    await this.#reading;
    return this.pictures;
  }

  /** Hold these pictures and no others; `refused` is one of them. */
  put(pictures, refused = null) {
    this.pictures = pictures;
    this.#list.replaceChildren(...pictures.map((picture) => this.#item(picture, picture === refused)));
    this.#list.hidden = pictures.length === 0;
  }

  async #read(file) {
    const name = this.#name(file);
    // where the browser knows no type the server tells by the content, as it does in any case
    const type = file.type || "image/unknown";
    if (!type.startsWith("image/")) return { problem: `${name} is not a picture.` };
    try {
      const [, data] = (await read(file)).split(",");
      return data ? { name, address: `data:${type};base64,${data}` } : { problem: `${name} is empty.` };
    } catch {
      return { problem: `${name} cannot be read.` };
    }
  }

  #name({ name }) {
    // what all pasted pictures are called
    return name && name !== "image.png" ? name : `picture ${++this.#unnamed}`;
  }

  #item(picture, isRefused) {
    const item = document.createElement("li");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove ${picture.name}`);
    remove.addEventListener("click", () => this.#remove(picture));
    item.classList.toggle("refused", isRefused);
    item.append(image(picture), remove);
    return item;
  }

  #remove(picture) {
    const at = this.pictures.indexOf(picture);
    this.put(this.pictures.filter((other) => other !== picture));
    // the button that had the focus is gone
    const next = this.#list.querySelectorAll("button")[Math.min(at, this.pictures.length - 1)];
    (next ?? document.getElementById("question")).focus();
    this.#say([], "");
  }
}

/** A picture as an element. */
export function image({ name, address }) {
  const made = document.createElement("img");
  made.src = address;
  made.alt = name;
  made.title = name;
  return made;
}

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
