// Five steps for whoever has never seen a text being denoised.

const $ = (id) => document.getElementById(id);
const SEEN = "seedjax-tour";
const STEPS = [
  {
    at: "code-section",
    title: "A prompt",
    text:
      "A language model goes on where a text stops. Here that is the head of a Python function. Most models " +
      "write one token, a word or a piece of one, after the other, from left to right. This one does not.",
  },
  {
    at: "canvas-section",
    title: "A canvas of masks",
    text:
      "It starts from a canvas on which every position is masked, hatched here. One forward pass through the " +
      "network reads the prompt and the whole block of the canvas at once, and proposes a token for every masked position.",
    run: true,
  },
  {
    at: "time",
    title: "Denoising, step by step",
    text:
      "Of the proposals, those it is confident of stay; the others are masked again and tried in the next step, " +
      "with more text around them. Move the slider through the steps. Point at a token to see its confidence.",
  },
  {
    at: "canvas",
    title: "Blocks, and changes of mind",
    text:
      "A block that is full is committed, and the next one begins. Until then some models may edit, delete or " +
      "insert tokens: what was written first need not be right. The legend shows how each looks.",
  },
  {
    at: "figures",
    title: "Why it is fast",
    text:
      "A forward pass costs nearly the same for one token as for a block of them. The more tokens it yields, the " +
      "faster the text is there. Race compares it with one token per step. Accept puts the completion into your code.",
  },
];

/** The tour; `run` starts the example of its second step. */
export function makeTour(run) {
  const dialog = $("tour");
  let step = 0;
  let opener = null;

  function show(number) {
    step = number;
    const { at, title, text } = STEPS[step];
    unmark();
    $(at).classList.add("spot");
    $("tour-title").textContent = title;
    $("tour-text").textContent = text;
    $("tour-count").textContent = `Step ${step + 1} of ${STEPS.length}`;
    $("tour-back").disabled = step === 0;
    $("tour-next").textContent = step === STEPS.length - 1 ? "Done" : "Next";
    $("tour-title").focus();
    $(at).scrollIntoView({ block: "nearest" });
    if (STEPS[step].run) run();
  }
  const unmark = () => document.querySelector(".spot")?.classList.remove("spot");

  function close() {
    dialog.close();
    unmark();
    localStorage.setItem(SEEN, "1");
    opener?.focus();
  }

  $("tour-back").addEventListener("click", () => show(step - 1));
  $("tour-next").addEventListener("click", () => (step === STEPS.length - 1 ? close() : show(step + 1)));
  $("tour-close").addEventListener("click", close);
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    close();
  });
  return {
    open() {
      opener = document.activeElement;
      dialog.show();
      show(0);
    },
    isNew: () => !localStorage.getItem(SEEN),
  };
}
