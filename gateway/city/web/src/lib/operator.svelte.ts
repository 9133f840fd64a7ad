/** Who sits at this page, as they said when they first took notice of something; kept in the browser. */
class Operator {
  #name = $state(localStorage.getItem('citygate.operator') ?? '')

  get name(): string {
    return this.#name
  }
  set name(name: string) {
    this.#name = name
    localStorage.setItem('citygate.operator', name)
  }
}

export const operator = new Operator()
