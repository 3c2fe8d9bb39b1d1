/** The path of the guest program. */
declare const program: string
export default program
