// A link ends in #token=…, which browsers do not send: the form is filled in with it, and it leaves the address.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
const form = document.querySelector("form.login");
if (given) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = given;
  form.submit();
} else if (location.hash) {
  form.elements.next.value += location.hash; // that of the page that was asked for: browsers keep it over a redirect
}
