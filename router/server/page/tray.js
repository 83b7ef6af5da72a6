/** The images that belong to the next question, and the list that shows them. */
export class Tray {
  images = [];
  #list;
  #say;
  #reading = Promise.resolve(); // of files, one after the other, so that their order stays
  #unnamed = 0;

  /** `say` is told in words what was added and what was not. */
  constructor(list, say) {
    this.#list = list;
    this.#say = say;
  }

  /** Read files as images. */
  add(files) {
    const wanted = [...files]; // the browser empties its list when the event is over
    this.#reading = this.#reading.then(async () => {
      const read = await Promise.all(wanted.map((file) => this.#read(file)));
      const found = read.filter(({ address }) => address);
      this.put([...this.images, ...found]);
      this.#say(found, read.flatMap(({ problem }) => problem ?? []).join(" "));
    });
    return this.#reading;
  }

  /** The images, once all of them are read. */
  async whole() {
    await this.#reading;
    return this.images;
  }

  /** Hold these images and no others; `refused` is one of them. */
  put(images, refused = null) {
    this.images = images;
    this.#list.replaceChildren(...images.map((image) => this.#item(image, image === refused)));
    this.#list.hidden = images.length === 0;
  }

  async #read(file) {
    const name = this.#name(file);
    // where the browser knows no type the server tells by the content, as it does in any case
    const type = file.type || "image/unknown";
    if (!type.startsWith("image/")) return { problem: `${name} is not an image.` };
    try {
      const [, data] = (await read(file)).split(",");
      return data ? { name, address: `data:${type};base64,${data}` } : { problem: `${name} is empty.` };
    } catch {
      return { problem: `${name} cannot be read.` };
    }
  }

  #name({ name }) {
    // what all pasted images are called
    return name && name !== "image.png" ? name : `image ${++this.#unnamed}`;
  }

  #item(image, isRefused) {
    const item = document.createElement("li");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove ${image.name}`);
    remove.addEventListener("click", () => this.#remove(image));
    item.classList.toggle("refused", isRefused);
    item.append(imageElement(image), remove);
    return item;
  }

  #remove(image) {
    const at = this.images.indexOf(image);
    this.put(this.images.filter((other) => other !== image));
    // the button that had the focus is gone
    const next = this.#list.querySelectorAll("button")[Math.min(at, this.images.length - 1)];
    (next ?? document.getElementById("question")).focus();
    this.#say([], "");
  }
}

/** An image as an element. */
export function imageElement({ name, address }) {
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
