// Shows the key to the gateway, which keeps it in a cookie that scripts cannot read, and loads the page again.

const form = document.querySelector("form.login");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const reply = await fetch("/dashboard/login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ key: new FormData(form).get("key") }),
  });
  if (reply.ok) location.reload();
  else document.querySelector(".state").textContent = "That key is not valid.";
});
