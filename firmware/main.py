# The default application: updates, health check, confirmation, and whatever the module `application` adds.
import sekisho

sekisho.run("application")
