/** The files of the live page by their paths, as scripts/build-page.js leaves them in dist/page. */
declare const files: Readonly<Record<string, { readonly type: string; readonly body: string }>>
export default files
